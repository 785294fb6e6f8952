"""Load a pipeline by the name that is given on the command line."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.errors import LocalEntryNotFoundError

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.loading import MODELS, load_embedded


def load_model(model: str) -> Any:
    """Load a pipeline: from a folder, by a cached hub id, or one that the package ships, ``glyphs`` or ``glyphs-fast``.

    Raises:
        DnpGuardError: there is no such pipeline.
    """
    if model in MODELS:
        return load_embedded(model)
    gpu = torch.cuda.is_available()
    try:
        pipe = DiffusionPipeline.from_pretrained(
            model, dtype=torch.float16 if gpu else torch.float32, use_safetensors=True, local_files_only=True
        )
    except LocalEntryNotFoundError as error:
        raise DnpGuardError(
            f"{model}: neither a folder here nor in the Hugging Face cache",
            hint=f"Check the path, or download it first: hf download {model}",
        ) from error
    except (OSError, ValueError) as error:
        raise DnpGuardError(
            f"{model}: no diffusers pipeline could be loaded: {str(error).splitlines()[0]}",
            hint="Give a folder with a model_index.json and safetensors weights, or an id that is in the hub cache.",
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if gpu else "cpu")
