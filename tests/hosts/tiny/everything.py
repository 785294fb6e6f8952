"""A tiny pipeline of every class that one can be built of, and how it is called."""

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
    """No tiny pipeline of a class can be built, and why."""


@dataclass(frozen=True)
class Subject:
    """A pipeline and a way to call it.

    Attributes:
        pipe: the pipeline.
        images: items that a call makes.
        draw: makes them, from fixed seeds, as arrays.
        alone: the same with a call for one image; None where it was not tried.
    """

    pipe: Any
    images: int
    draw: Any
    alone: Any = None


def classes():
    """Names of every pipeline class of the installed diffusers."""
    none = {"DiffusionPipeline", "ModularPipeline"}
    return sorted(name for name in dir(diffusers) if name.endswith("Pipeline") and name not in none)


def subject(name):
    """A tiny pipeline of a class.

    Raises:
        NotBuiltError: none can be built.
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
            pipe.vae.enable_tiling()  # it decodes in no other way
        if name.startswith("HiDream"):
            pipe.default_sample_size = 4  # it scales what it is asked for to so many latents
        count_template(pipe)
        if hasattr(pipe, "resolutions"):
            pipe.resolutions = [(32, 32)]  # it takes no other sizes than these
    except NotBuiltError:
        raise
    except Exception as error:
        raise NotBuiltError(f"not tried: no tiny one can be built here ({_line(error)})") from error
    return _tried(pipe, lambda made, images: made(**_inputs(name, kind, images)))


def kind_of(name):
    """The class of a name, also where diffusers hides it as a tokenizer's library is not installed: ours stands in."""
    kind = getattr(diffusers, name)
    if getattr(kind, "_backends", None) is None or "sentencepiece" not in kind._backends:
        return kind
    folder = Path(diffusers.__file__).parent
    file = next(each for each in folder.glob("pipelines/**/*.py") if f"\nclass {name}(" in each.read_text("utf-8"))
    with patch.dict(sys.modules, {"sentencepiece": SimpleNamespace(SentencePieceProcessor=None)}):
        return getattr(import_module(f"diffusers.{'.'.join(file.relative_to(folder).with_suffix('').parts)}"), name)


def count_template(pipe):
    """Tell a pipeline how many words our tokenizer makes of the template that it leaves out before the prompt."""
    names = ("prompt_template_encode", "prompt_template")
    template = next((each for name in names if isinstance(each := getattr(pipe, name, None), str)), None)
    if template is not None and hasattr(pipe, "prompt_template_encode_start_idx"):
        tokenizer = getattr(pipe, "tokenizer", None) or pipe.processor
        read = getattr(tokenizer, "tokenizer", tokenizer)([template.partition("{")[0]])["input_ids"][0]
        pipe.prompt_template_encode_start_idx = len(read) - 1
    elif "Video15" in type(pipe).__name__:
        pipe.prompt_template_encode_start_idx = 8


def as_here():
    """Have diffusers scale what it edits to a thousand pixels rather than a million, and resize without torchvision."""
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
"""What Cosmos uses of torchvision, which is not installed here."""


def _inputs(name, kind, images):
    if name in of_diffusers.specs():
        return variants.given_to(name, of_diffusers.inputs(name, kind, images), images)
    taken = inspect.signature(kind.__call__).parameters
    accepted = {each: taken[each].default is inspect.Parameter.empty for each in taken}
    return assembled.inputs(name, accepted, images)


def _tried(pipe, call):
    """The pipeline as it is called for three images, or where it cannot be, for one."""
    reason = None
    for images in (3, 1):
        try:
            if len(as_arrays(_seeded(call, pipe, images))) == images:
                one = Subject(pipe, 1, lambda: as_arrays(_seeded(call, pipe, 1)))
                return one if images == 1 else Subject(pipe, 3, lambda: as_arrays(_seeded(call, pipe, 3)), one)
        except Exception as error:  # noqa: BLE001 (some take one prompt alone)
            reason = error
    raise NotBuiltError(f"not tried: a tiny one fails without a guard ({_line(reason)})")


def _seeded(call, pipe, images):
    torch.manual_seed(0)  # some draw without their generator
    return call(pipe, images)


def as_arrays(result):
    """The items of what a call returned."""
    items = result if isinstance(result, list | np.ndarray) else result[0]
    return [np.asarray(each) for each in items]


def _line(error):
    return " ".join(str(error).split())[:120] or type(error).__name__
