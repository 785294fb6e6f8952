"""Build tiny modular pipelines of diffusers from the parts of tiny ordinary ones."""

import diffusers
import numpy as np
import torch

from tests.hosts.tiny import assembled, variants
from tests.hosts.tiny.calls import PICTURE


def built(name):
    """Build a tiny modular pipeline of the named class."""
    pipe = getattr(diffusers, name)()
    without = variants.VARIANTS.get(name, variants.Variant()).without
    if without:
        blocks = pipe.blocks
        for block in without:
            blocks.sub_blocks.pop(block, None)
        pipe = blocks.init_pipeline()
    if hasattr(pipe, "disable_safety_checker"):
        pipe.disable_safety_checker()  # the checker is a model of its own
    fill(pipe, name)
    return pipe


def fill(pipe, name):
    """Set the parts that a modular pipeline's blocks expect, taken from pipelines of classes with similar names."""
    specs = {spec.name: spec for spec in pipe.blocks.expected_components}
    annotations = {
        part_name: getattr(spec.type_hint, "__name__", str(spec.type_hint)) for part_name, spec in specs.items()
    }
    annotations = {
        part_name: written for part_name, written in annotations.items() if getattr(pipe, part_name, None) is None
    }
    components = assembled.fitting(name, annotations, {*annotations})
    if "transformer_2" in annotations and "transformer_2" not in components:
        components["transformer_2"] = components["transformer"]
    pipe.update_components(
        **{part_name: part for part_name, part in variants.parts_of(name, components).items() if part_name in specs}
    )
    pipe.set_progress_bar_config(disable=True)


def draw(pipe, images, like=""):
    """Generate images or videos from fixed seeds, as arrays.

    Args:
        pipe: the modular pipeline.
        images: number of images to ask for.
        like: name of the class whose arguments the call uses; the pipeline's own by default.
    """
    accepted = {argument.name: argument.required for argument in pipe.blocks.inputs if argument.name}
    given = assembled.inputs(like or type(pipe).__name__, accepted, images)
    if isinstance(given.get("image"), torch.Tensor):  # blocks take pictures only
        given["image"] = PICTURE
    state = pipe(**given)
    return np.asarray(next(state.values[key] for key in ("images", "videos") if state.values.get(key) is not None))
