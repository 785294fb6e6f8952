"""Modular pipelines of the parts of tiny ordinary ones."""

import diffusers
import numpy as np
import torch

from tests.hosts.tiny import assembled, variants
from tests.hosts.tiny.calls import PICTURE


def built(name):
    """A modular pipeline of a class."""
    pipe = getattr(diffusers, name)()
    without = variants.VARIANTS.get(name, variants.Variant()).without
    if without:
        blocks = pipe.blocks
        for each in without:
            blocks.sub_blocks.pop(each, None)
        pipe = blocks.init_pipeline()
    if hasattr(pipe, "disable_safety_checker"):
        pipe.disable_safety_checker()  # which is a model of its own
    fill(pipe, name)
    return pipe


def fill(pipe, name):
    """Give a modular pipeline the parts that its blocks expect, from the kin of a name."""
    specs = {each.name: each for each in pipe.blocks.expected_components}
    wanted = {each: getattr(spec.type_hint, "__name__", str(spec.type_hint)) for each, spec in specs.items()}
    wanted = {each: written for each, written in wanted.items() if getattr(pipe, each, None) is None}
    found = assembled.fitting(name, wanted, {*wanted})
    if "transformer_2" in wanted and "transformer_2" not in found:
        found["transformer_2"] = found["transformer"]
    pipe.update_components(**{each: part for each, part in variants.parts_of(name, found).items() if each in specs})
    pipe.set_progress_bar_config(disable=True)


def draw(pipe, images, like=""):
    """Items from fixed seeds, as arrays.

    Args:
        pipe: the pipeline.
        images: how many.
        like: the class that it is called as; its own by default.
    """
    accepted = {each.name: each.required for each in pipe.blocks.inputs if each.name}
    given = assembled.inputs(like or type(pipe).__name__, accepted, images)
    if isinstance(given.get("image"), torch.Tensor):  # blocks take pictures alone
        given["image"] = PICTURE
    state = pipe(**given)
    return np.asarray(next(state.values[key] for key in ("images", "videos") if state.values.get(key) is not None))
