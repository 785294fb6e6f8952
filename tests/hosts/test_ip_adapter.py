"""The guard steers pipelines that take pictures as prompts (IP-Adapter)."""

import numpy as np
import pytest
import torch

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import draw, tiny
from tests.policies import policy

pytestmark = pytest.mark.models

WIDTH = 8


@pytest.fixture
def pipe():
    """Yield a tiny pipeline with an IP-Adapter of random weights, and remove the adapter afterwards."""
    made = tiny("StableDiffusionPipeline")
    plain = made.unet.attn_processors
    drawing = torch.Generator().manual_seed(0)

    def weights(*shape):
        return torch.randn(*shape, generator=drawing) / shape[-1] ** 0.5

    layers = {}
    for place, name in enumerate(name for name in plain if "attn2" in name):
        width = made.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        layers |= {f"{2 * place + 1}.to_{part}_ip.weight": weights(width, 32) for part in "kv"}
    projection = {"proj.weight": weights(4 * 32, WIDTH), "proj.bias": weights(4 * 32)}
    projection |= {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    made.load_ip_adapter(
        {"image_proj": projection, "ip_adapter": layers}, subfolder="", weight_name="", image_encoder_folder=None
    )
    yield made
    made.unload_ip_adapter()
    made.unet.set_attn_processor(plain)


def picture(seed):
    """Return random embeddings of one picture, used with every prompt, after zeros for the unconditional."""
    shown = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(seed))
    return [torch.cat([torch.zeros_like(shown), shown])]


@pytest.mark.parametrize("mode", ["separate", "replace"])
def test_only_the_image_concerned_changes(pipe, mode):
    guidance = {"mode": "replace", "scale": None, "strength": None} if mode == "replace" else {"mode": mode, "hold": 9}
    plain = draw(pipe, ip_adapter_image_embeds=picture(1))
    seen = ScriptedBackend([[{}, {"star": 0.9}, {}], {"star": 0.0}])
    with Guard(policy(guidance=guidance), vlm=seen).attached(pipe) as guard:
        steered = draw(pipe, ip_adapter_image_embeds=picture(1))
    assert not guard.last.degraded
    moved = [float(np.abs(a - b).max()) for a, b in zip(plain, steered, strict=True)]
    assert moved[0] == 0
    assert moved[2] == 0
    assert moved[1] > 1e-4


def test_the_extra_evaluation_is_given_the_picture_of_the_unconditional_branch(pipe):
    given = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, __, kwargs: given.append(kwargs["added_cond_kwargs"]["image_embeds"][0]), with_kwargs=True
    )
    try:
        with Guard(policy(), vlm=ScriptedBackend([[{}, {"star": 0.9}, {}]])).attached(pipe):
            draw(pipe, ip_adapter_image_embeds=picture(1))
    finally:
        hook.remove()
    extra = [embedding for embedding in given if len(embedding) == 1]
    assert extra
    assert all((embedding == 0).all() for embedding in extra)
    assert {bool(embedding[3:].any()) for embedding in given if len(embedding) == 6} == {True}


def test_the_picture_still_counts_in_a_steered_image(pipe):
    drawn = []
    for seed in (1, 2):
        with Guard(policy(), vlm=ScriptedBackend([[{}, {"star": 0.9}, {}], {"star": 0.0}])).attached(pipe):
            drawn.append(draw(pipe, ip_adapter_image_embeds=picture(seed)))
    assert np.abs(drawn[0][1] - drawn[1][1]).max() > 1e-4
