"""The guard works with adapters, other types of weights and unusual arguments of a pipeline's call."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig

from dnp_guard import Guard
from dnp_guard.hosts.diffusers.warming import warm_up
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.test_capture import conditioning
from tests.hosts.test_survival import guarded, steered
from tests.hosts.tiny import draw, tiny
from tests.hosts.tiny.looks import SeesAStarOnce
from tests.policies import policy, star

pytestmark = pytest.mark.models


@pytest.fixture
def pipe():
    return copy.deepcopy(tiny("StableDiffusionPipeline"))


def adapter(model, name, seed, modules=("to_k", "to_v")):
    """Add a LoRA with random weights to a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # for a second adapter
        model.add_adapter(
            LoraConfig(r=2, init_lora_weights="gaussian", target_modules=list(modules)), adapter_name=name
        )
    drawn = torch.Generator().manual_seed(seed)
    for key, weights in model.named_parameters():
        if f"lora_B.{name}" in key:
            torch.nn.init.normal_(weights, generator=drawn)


def test_free_u(pipe):
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert steered(pipe) == [1]


def test_weights_that_are_kept_in_a_smaller_type(pipe):
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert steered(pipe) == [1]


@pytest.mark.parametrize(
    "kind", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_weights_that_are_fetched_in_groups(pipe, kind):
    cpu = torch.device("cpu")
    pipe.unet.enable_group_offload(onload_device=cpu, offload_device=cpu, **kind)
    assert steered(pipe) == [1]


def test_a_quantised_denoiser(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.unet = torch.ao.quantization.quantize_dynamic(pipe.unet, {torch.nn.Linear}, dtype=torch.qint8)
        plain = draw(pipe)
        with Guard(policy(), vlm=ScriptedBackend([{}])).attached(pipe):
            assert np.array_equal(draw(pipe), plain)
        with guarded().attached(pipe) as guard:
            # Activations are quantised by the largest of the batch, so the other images move too.
            assert not np.array_equal(draw(pipe)[1], plain[1])
    assert guard.last.degraded == ()


def test_a_lora_that_is_switched_between_calls(pipe):
    for seed, name in enumerate(("first", "second")):
        adapter(pipe.unet, name, seed)
    pipe.unet.set_adapter("second")
    with guarded().attached(pipe):
        expected = draw(pipe)
    pipe.unet.set_adapter("first")
    with Guard(policy(guidance={"hold": 9}), vlm=ScriptedBackend(_twice())).attached(pipe):
        before = draw(pipe)
        pipe.unet.set_adapter("second")
        after = draw(pipe)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, expected)


def _twice():
    """Return scripted answers for two calls of five looks; in both calls, look 2 sees a star in the second image."""
    of_call = [[{}] * 3, [{}, {"a star": 0.9}, {}], *[[{}] * 3] * 3]
    return of_call + of_call


def test_a_negative_has_the_scale_that_the_call_gives_a_lora_of_its_encoder(pipe):
    adapter(pipe.text_encoder, "words", 0, ("q_proj", "v_proj"))
    given = {}
    for scale in (0.3, 1.0):
        given[scale] = conditioning(pipe, cross_attention_kwargs={"scale": scale})["encoder_hidden_states",]
        _, expected = pipe.encode_prompt("a", "cpu", 1, True, negative_prompt="star", lora_scale=scale)
        torch.testing.assert_close(given[scale], expected)
    assert not torch.equal(given[0.3], given[1.0])


@pytest.mark.parametrize("prompts", [["a lake"], ["a lake", "a hill"]])
def test_as_many_images_as_prompts(pipe, prompts):
    def call():
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        return draw(pipe, prompt=list(prompts), generator=generators)

    plain = call()
    look = [{"a star": 0.9}, *[{}] * (len(prompts) - 1)]
    with Guard(policy(guidance={"hold": 9}), vlm=ScriptedBackend([look])).attached(pipe) as guard:
        seen = call()
    assert len(guard.last.images) == len(prompts)
    assert [bool((a == b).all()) for a, b in zip(plain, seen, strict=True)][1:] == [True] * (len(prompts) - 1)
    assert guard.last.images[0].negatives


@pytest.mark.parametrize("prompt", ["a lake", ["a lake"]])
def test_one_prompt_as_text_and_as_a_list(pipe, prompt):
    with Guard(policy(), vlm=ScriptedBackend([{"a star": 0.9}])).attached(pipe) as guard:
        draw(pipe, prompt=prompt, generator=torch.Generator().manual_seed(0))
    assert [len(image.negatives) > 0 for image in guard.last.images] == [True]


def test_embeddings_of_both_prompts(pipe):
    own, negative = pipe.encode_prompt(["a lake", "a hill", "a wood"], "cpu", 1, True, negative_prompt=["fog"] * 3)
    assert steered(pipe, prompt=None, prompt_embeds=own, negative_prompt_embeds=negative) == [1]


@pytest.mark.parametrize("batched", [None, True])
def test_embeddings_that_are_longer_than_the_encoder_gives(pipe, batched):
    own, negative = pipe.encode_prompt(["a lake", "a hill", "a wood"], "cpu", 1, True, negative_prompt=["fog"] * 3)
    given = {"prompt": None, "prompt_embeds": own.repeat(1, 2, 1), "negative_prompt_embeds": negative.repeat(1, 2, 1)}
    plain = draw(pipe, **given)
    look = [{}, {"a star": 0.9}, {}]
    with Guard(policy(guidance={"batched": batched}), vlm=ScriptedBackend([look])).attached(pipe) as guard:
        seen = draw(pipe, output_type="np", **given)
    assert guard.last.degraded == ()
    assert not np.array_equal(seen[1], plain[1])


@pytest.mark.parametrize("name", ["WanPipeline", "CogVideoXPipeline", "LTXPipeline"])
def test_the_latents_of_a_video(name):
    video = tiny(name)
    plain = draw(video, output_type="latent")
    look = [{}, {}, {}, {"a star": 0.9}, {"a star": 0.9}, {"a star": 0.9}, {}, {}, {}]
    of = policy(guidance={"hold": 9}, categories=[star(still_present="monitor")])
    with Guard(of, vlm=ScriptedBackend([look])).attached(video) as guard:
        seen = draw(video, output_type="latent")
    assert guard.last.degraded == ()
    changed = [not bool((a == b).all()) for a, b in zip(plain, seen, strict=True)]
    assert changed == [False, True, False]


def test_after_a_warm_up_no_guarded_call_compiles(pipe):
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend=backend)
    guard = Guard(policy(guidance={"hold": 9}), vlm=ScriptedBackend([[{}, {"a star": 0.9}, {"a star": 0.9}]]))
    with guard.attached(pipe):
        state = torch.get_rng_state()
        warm_up(guard, pipe, ["a", "b", "c"], height=32, width=32)
        assert torch.equal(torch.get_rng_state(), state)
        before = len(compiled)
        draw(pipe)
        draw(pipe)
    torch._dynamo.reset()
    assert len(compiled) == before > 0
    assert [bool(image.negatives) for image in guard.last.images] == [False, True, True]


@pytest.mark.parametrize("name", ["Lumina2Pipeline", "SanaPipeline", "PixArtSigmaPipeline"])
def test_a_negative_of_another_length_in_the_users_place_leaves_the_others_every_bit(name):
    pipe = tiny(name)
    plain = draw(pipe, output_type="latent")
    of = policy(guidance={"mode": "replace", "scale": None, "strength": None, "hold": 9})
    with Guard(of, vlm=SeesAStarOnce()).attached(pipe) as guard:
        seen = draw(pipe, output_type="latent")
    assert guard.last.degraded == ()
    assert [bool((a == b).all()) for a, b in zip(plain, seen, strict=True)] == [True, False, True]
