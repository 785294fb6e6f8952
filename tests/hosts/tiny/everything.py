"""A tiny pipeline of every class that one can be built of, and how it is called."""

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch

from tests.hosts.tiny import CALLS, draw, modular, of_diffusers, tiny

WITHOUT = {
    "Onnx": "its denoiser runs in ONNX Runtime, which is no module and is not installed here",
    "Cosmos3Omni": "its tests have no tiny tokenizer",
}


class NotBuiltError(Exception):
    """No tiny pipeline of a class can be built, and why."""


@dataclass(frozen=True)
class Subject:
    """A pipeline and a way to call it.

    Attributes:
        pipe: the pipeline.
        images: items that a call makes.
        draw: makes them, from fixed seeds, as arrays.
    """

    pipe: Any
    images: int
    draw: Any


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
    if name in modular.PIPELINES:
        try:
            made = modular.built(name)
        except Exception as error:
            raise NotBuiltError(f"not tried: no tiny one can be built here ({_line(error)})") from error
        return _tried(made, modular.draw)
    if name not in of_diffusers.specs():
        reason = next((reason for start, reason in WITHOUT.items() if start in name), "")
        raise NotBuiltError(reason or "no configuration of a tiny one is known: it was not tried")
    kind = getattr(diffusers, name)
    try:
        pipe = kind(**of_diffusers.components(name))
        pipe.set_progress_bar_config(disable=True)
    except Exception as error:
        raise NotBuiltError(f"not tried: no tiny one can be built here ({_line(error)})") from error
    return _tried(pipe, lambda made, images: made(**of_diffusers.inputs(name, kind, images)))


def _tried(pipe, call):
    """The pipeline as it is called for three images, or where it cannot be, for one."""
    reason = None
    for images in (3, 1):
        try:
            if len(as_arrays(_seeded(call, pipe, images))) == images:
                return Subject(pipe, images, lambda images=images: as_arrays(_seeded(call, pipe, images)))
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
