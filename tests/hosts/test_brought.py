"""The guard finds the input pictures in a call's arguments, and queries them before the first denoising step."""

from __future__ import annotations

from dataclasses import dataclass

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from dnp_guard import Guard, RequestRefused
from dnp_guard.hosts.diffusers.input_pictures import brought
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import CALLS, draw, tiny
from tests.policies import bolt, policy, star

RED, BLUE = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
RISING = {"categories": [star(more_than_input=0.2), bolt()]}
BLOCKING = {"inputs": {"query": True, "action": "block"}}
EDITS = (
    "FluxKontextPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
)


@dataclass
class Condition:
    image: Image.Image
    frame_index: int = 0


def colours(given, images=1):
    """Return the colours of the pictures that the guard finds in a call's arguments, and of all frames of videos."""
    return [[picture.getpixel((0, 0)) for picture in pictures] for pictures, _ in brought(given, images)]


def guard(looks, **changes):
    return Guard(policy(**changes), vlm=ScriptedBackend(looks))


IS_RED, IS_BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"image": RED}, [[IS_RED]]),
        ({"image": [RED, BLUE]}, [[IS_RED], [IS_BLUE]]),
        ({"init_image": RED, "anything": BLUE}, [[IS_RED], [IS_BLUE]]),
        ({"image": RED, "mask_image": BLUE}, [[IS_RED]]),
        ({"video": [RED, BLUE, RED, BLUE, BLUE]}, [[IS_RED, IS_RED, IS_BLUE]]),
        ({"video": [[RED, RED], [BLUE, BLUE]]}, [[IS_RED, IS_RED], [IS_BLUE, IS_BLUE]]),
        ({"conditions": [Condition(RED), Condition(BLUE)]}, [[IS_RED], [IS_BLUE]]),
        ({"image": np.asarray(RED)}, [[IS_RED]]),
        ({"image": np.asarray(RED)[None] / 255}, [[IS_RED]]),
        ({"image": torch.tensor([1.0, 0, 0]).view(3, 1, 1)}, [[IS_RED]]),
        ({"image": torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1)}, [[IS_RED]]),
        ({"video": torch.tensor([1.0, 0, 0]).view(1, 1, 3, 1, 1).expand(1, 5, 3, 1, 1)}, [[IS_RED] * 3]),
        ({"image": torch.zeros(1, 4, 8, 8)}, [[]]),
        ({"image_latents": torch.zeros(1, 3, 8, 8)}, [[]]),
        ({"image": torch.full((1, 3, 8, 8), torch.nan)}, [[]]),
        ({"latents": torch.zeros(1, 4, 8, 8), "prompt": "an image", "image_guidance_scale": 1.5}, []),
    ],
)
def test_a_picture_is_found_in_any_argument(given, expected):
    assert colours(given) == expected


def test_each_prompt_has_the_picture_of_its_own():
    given = {"prompt": ["a", "b"], "image": [RED, BLUE]}
    assert [list(owners) for _, owners in brought(given, 4)] == [[0, 1], [2, 3]]


def test_several_pictures_of_one_prompt_are_of_all_its_images():
    assert [owners for _, owners in brought({"prompt": "a", "image": [RED, BLUE]}, 2)] == [None, None]


@pytest.mark.parametrize("name", EDITS)
def test_a_refused_picture_ends_the_call_before_anything_is_drawn(name):
    pipe = tiny(name)
    with guard([{"a star": 0.9}], **BLOCKING) as watching, watching.attached(pipe):
        with pytest.raises(RequestRefused, match="picture 0 of the request is refused: Star calls for block"):
            draw(pipe)
        assert watching.last.decision == "blocked"
        assert watching.last.images[0].queries == ()


@pytest.mark.parametrize("name", EDITS)
def test_content_of_the_input_keeps_every_bit(name):
    pipe = tiny(name)
    plain = draw(pipe)
    with guard([{"a star": 0.8}, {"a star": 0.9}], **RISING) as watching, watching.attached(pipe):
        drawn = draw(pipe)
    assert watching.last.decision == "clean"
    assert np.array_equal(drawn, plain)


def test_content_added_to_the_input_is_withheld():
    pipe = tiny(EDITS[1])
    with guard([{"a star": 0.1}, {"a star": 0.9}], **RISING) as watching, watching.attached(pipe):
        draw(pipe)
    assert {image.decision for image in watching.last.images} == {"blocked"}
    assert [report.action for report in watching.last.inputs] == ["pass"] * 3


def test_a_call_without_pictures_is_asked_about_as_before():
    pipe = tiny("StableDiffusionPipeline")
    with guard([{"a star": 0.0}], **RISING) as watching, watching.attached(pipe):
        draw(pipe)
    assert watching.last.inputs == ()


def test_the_call_argument_asks_too():
    pipe = tiny(EDITS[1])
    with guard([{"a star": 0.9}], **BLOCKING) as watching, pytest.raises(RequestRefused):
        draw(pipe, callback_on_step_end=watching)
    assert watching.last.decision == "blocked"


@pytest.mark.parametrize("name", [name for name in CALLS if "image" in CALLS[name] or "video" in CALLS[name]])
def test_every_class_that_takes_pictures_brings_them(name):
    assert hasattr(diffusers, name)
    owned = brought({"prompt": ["a", "b", "c"], **CALLS[name]}, 3)
    assert owned
    assert all(pictures for pictures, _ in owned)
