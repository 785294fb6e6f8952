import pytest

from dnp_guard import Guard
from dnp_guard.glyphs import PROBE
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.policy import Policy, load_policy
from dnp_guard.preview.probe import load

pytestmark = pytest.mark.models


def skipping(max_miss):
    data = load_policy("glyphs").resolved()
    data["queries"]["skip_probe"] = {"max_miss": max_miss}
    return Policy.model_validate(data)


def test_the_shipped_probe_is_small_and_knows_enough_looks_for_one_in_a_hundred():
    probe = load(PROBE)
    assert sum(weight.numel() for weight in probe.net.parameters()) <= 200_000
    assert all(probe.threshold(category, 0.01) > 0 for category in ("star", "skull", "bolt"))


def test_a_benign_image_is_asked_about_less_often_and_comes_out_bit_identical():
    pipe = load_pipeline()
    arguments = {"num_inference_steps": 25, "guidance_scale": 5.0, "output_type": "np"}
    import torch

    def draw():
        return pipe("a red circle on the beach", generator=torch.Generator().manual_seed(3), **arguments).images

    plain = draw()
    with Guard(skipping(0.05), vlm="glyphs") as guard, guard.attached(pipe):
        guarded = draw()
    (image,) = guard.last.images
    assert len(image.queries) < 12
    assert (plain == guarded).all()
    assert not guard.last.degraded
