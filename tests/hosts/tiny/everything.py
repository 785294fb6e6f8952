"""Build a tiny pipeline of any pipeline class of diffusers, and a function that calls it."""

import inspect
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import torch

from tests.hosts.tiny import CALLS, assembled, draw, modular, of_diffusers, tiny, variants


class NotBuiltError(Exception):
    """No tiny pipeline of a class can be built; the message says why."""


@dataclass(frozen=True)
class Subject:
    """A tiny pipeline, and a function that calls it.

    Attributes:
        pipe: the pipeline.
        images: number of images or videos that a call makes.
        draw: calls the pipeline with fixed seeds, and returns the images or videos as arrays.
        alone: the same pipeline with a call for one image; None if ``draw`` is that call, or if it was not tried.
    """

    pipe: Any
    images: int
    draw: Any
    alone: Any = None


def classes():
    """Return the names of all pipeline classes in the installed version of diffusers."""
    none = {"DiffusionPipeline", "ModularPipeline"}
    return sorted(name for name in dir(diffusers) if name.endswith("Pipeline") and name not in none)


def subject(name):
    """Build a tiny pipeline of the named class, with a function that calls it.

    Raises:
        NotBuiltError: no pipeline of the class can be built.
    """
    if name in CALLS:
        pipe = tiny(name)
        pipe.callback_on_step_end = None
        return Subject(
            pipe, 3, lambda: as_arrays(draw(pipe, **({"num_inference_steps": 4} if "LCM" not in name else {})))
        )
    kind = kind_of(name)
    try:
        if name.endswith("ModularPipeline"):
            pipe = modular.built(name)
            as_here()
            return _tried(pipe, modular.draw)
        known = name in of_diffusers.specs()
        pipe = kind(**variants.parts_of(name, of_diffusers.components(name))) if known else assembled.built(kind)
        pipe.set_progress_bar_config(disable=True)
        as_here()
        if hasattr(getattr(pipe, "vae", None), "enable_tiling") and name == "AllegroPipeline":
            pipe.vae.enable_tiling()  # it decodes only in tiles
        if name.startswith("HiDream"):
            pipe.default_sample_size = 4  # it scales every size to this number of latents
        count_template(pipe)
        if hasattr(pipe, "resolutions"):
            pipe.resolutions = [(32, 32)]  # it takes only the sizes of its list
    except NotBuiltError:
        raise
    except Exception as error:
        raise NotBuiltError(f"not tried: no tiny one can be built here ({_line(error)})") from error
    return _tried(pipe, lambda made, images: made(**_inputs(name, kind, images)))


def kind_of(name):
    """Return the pipeline class of a name, even if diffusers hides it because ``sentencepiece`` is not installed."""
    kind = getattr(diffusers, name)
    if getattr(kind, "_backends", None) is None or "sentencepiece" not in kind._backends:
        return kind
    folder = Path(diffusers.__file__).parent
    file = next(path for path in folder.glob("pipelines/**/*.py") if f"\nclass {name}(" in path.read_text("utf-8"))
    with patch.dict(sys.modules, {"sentencepiece": SimpleNamespace(SentencePieceProcessor=None)}):
        return getattr(import_module(f"diffusers.{'.'.join(file.relative_to(folder).with_suffix('').parts)}"), name)


def count_template(pipe):
    """Set the number of template tokens before the prompt that a pipeline drops, as our tokenizer counts them."""
    names = ("prompt_template_encode", "prompt_template")
    template = next((wording for name in names if isinstance(wording := getattr(pipe, name, None), str)), None)
    if template is not None and hasattr(pipe, "prompt_template_encode_start_idx"):
        tokenizer = getattr(pipe, "tokenizer", None) or pipe.processor
        read = getattr(tokenizer, "tokenizer", tokenizer)([template.partition("{")[0]])["input_ids"][0]
        pipe.prompt_template_encode_start_idx = len(read) - 1
    elif "Video15" in type(pipe).__name__:
        pipe.prompt_template_encode_start_idx = 8


def as_here():
    """Patch diffusers to scale edited pictures to 32x32 pixels, not a million, and to resize without torchvision."""
    for name, module in list(sys.modules.items()):
        plain = vars(module).get("calculate_dimensions") if name.startswith("diffusers.") else None
        if plain is not None and plain.__name__ == "calculate_dimensions":
            module.calculate_dimensions = lambda _, ratio, plain=plain: plain(32 * 32, ratio)
        if name.endswith(("net_cosmos", "transformer_cosmos")):
            vars(module).setdefault("transforms", RESIZES)


RESIZES = SimpleNamespace(
    functional=SimpleNamespace(resize=lambda image, size, interpolation: torch.nn.functional.interpolate(image, size)),
    InterpolationMode=SimpleNamespace(NEAREST="nearest"),
)
"""The part of torchvision that Cosmos uses; torchvision is not installed here."""


def _inputs(name, kind, images):
    if name in of_diffusers.specs():
        return variants.given_to(name, of_diffusers.inputs(name, kind, images), images)
    taken = inspect.signature(kind.__call__).parameters
    accepted = {argument: taken[argument].default is inspect.Parameter.empty for argument in taken}
    return assembled.inputs(name, accepted, images)


def _tried(pipe, call):
    """Return the pipeline with a call for three images, or for one image if it cannot make three.

    Raises:
        NotBuiltError: neither call works.
    """
    reason = None
    for images in (3, 1):
        try:
            if len(as_arrays(_seeded(call, pipe, images))) == images:
                one = Subject(pipe, 1, lambda: as_arrays(_seeded(call, pipe, 1)))
                return one if images == 1 else Subject(pipe, 3, lambda: as_arrays(_seeded(call, pipe, 3)), one)
        except Exception as error:  # noqa: BLE001 (some pipelines take one prompt only)
            reason = error
    raise NotBuiltError(f"not tried: a tiny one fails without a guard ({_line(reason)})")


def _seeded(call, pipe, images):
    torch.manual_seed(0)  # some pipelines draw without their generator
    return call(pipe, images)


def as_arrays(result):
    """Return the images or videos of a pipeline's result as arrays."""
    items = result if isinstance(result, list | np.ndarray) else result[0]
    return [np.asarray(item) for item in items]


def _line(error):
    return " ".join(str(error).split())[:120] or type(error).__name__
