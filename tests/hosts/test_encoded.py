"""Negatives may be encoded before a call, for pipelines that are called without their text encoder."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dnp_guard import Guard
from dnp_guard.errors import DnpGuardError
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import draw, tiny
from tests.policies import policy, star

pytestmark = pytest.mark.models

LOOK = [{}, {"a star": 0.9}, {}]


def guard():
    return Guard(policy(categories=[star()], guidance={"hold": 9}), vlm=ScriptedBackend([LOOK]))


def prompts(pipe, name, texts):
    """Encode texts, and return them as arguments for a call of the pipeline."""
    if name == "FluxPipeline":
        embeds, pooled, _ = pipe.encode_prompt(texts, None, "cpu", max_sequence_length=16)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if name == "StableDiffusionXLPipeline":
        embeds, _, pooled, _ = pipe.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    return {"prompt_embeds": pipe.encode_prompt(texts, "cpu", 1, False)[0]}


def without_encoder(name):
    """Return a pipeline without its text encoders, encoded prompts as arguments of a call, and the encoded negative."""
    whole = tiny(name)
    own, empty, words = (prompts(whole, name, texts) for texts in (["a lake", "a hill", "a fog"], [""] * 3, ["star"]))
    call = {
        "prompt": None,
        **own,
        **{f"negative_{key}": value for key, value in empty.items()},
        "negative_prompt": None,
    }
    pipe = copy.deepcopy(whole)
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        if part in pipe.components:
            setattr(pipe, part, None)
    return pipe, call, {"star": words}


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline"])
def test_a_pipeline_without_its_text_encoder_is_steered_as_one_that_has_it(name):
    pipe, call, words = without_encoder(name)
    with guard().attached(tiny(name)):
        expected = draw(tiny(name), **call)
    with guard().encoded(words).attached(pipe) as watching:
        seen = draw(pipe, **call)
    assert watching.last.degraded == ()
    assert not np.array_equal(seen[1], draw(pipe, **call)[1])
    assert np.array_equal(seen, expected)


def test_a_file_of_safetensors_gives_the_same(tmp_path):
    pipe, call, words = without_encoder("StableDiffusionPipeline")
    file = tmp_path / "negatives.safetensors"
    save_file({"star/prompt_embeds": words["star"]["prompt_embeds"].contiguous()}, file)
    seen = []
    for encoded in (words, file):
        with guard().encoded(encoded).attached(pipe):
            seen.append(draw(pipe, **call))
    assert np.array_equal(*seen)


def test_words_that_were_not_encoded_follow_on_failure():
    pipe, call, words = without_encoder("StableDiffusionPipeline")
    with guard().encoded({"bolt": words["star"]}).attached(pipe) as watching:
        draw(pipe, **call)
    assert watching.last.degraded


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ({}, "no words"),
        ({"star": {"negative_prompt_embeds": torch.zeros(1, 2)}}, "no argument of a prompt"),
        ({"star": {"prompt_embeds": torch.zeros(2, 2)}}, "not one row"),
        ("nowhere.safetensors", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused(encoded, reason):
    with pytest.raises(DnpGuardError, match=reason):
        guard().encoded(encoded)
