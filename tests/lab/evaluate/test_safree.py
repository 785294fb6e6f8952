"""SAFREE in whole pipelines equals its equations, which are written here again in NumPy and double precision."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from dnp_guard.lab.evaluate.baselines.safree import projector
from dnp_guard.lab.evaluate.methods import Task, method
from dnp_guard.lab.evaluate.methods.safree import filtered, pooled, tokens
from dnp_guard.lab.evaluate.model import measured
from dnp_guard.lab.world.captions import Prompt
from tests.hosts.tiny.stable_diffusion import sd, sdxl

CONCEPTS = ("star", "skull", "bolt")
TEXT = "a red star and a blue circle"
STEPS = 3
WIDTH = 32


@pytest.fixture(scope="module")
def xl():
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(**sdxl())


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return StableDiffusionPipeline(**sd())


def listed(pipe, tokenizer, texts):
    """Return the token ids of every text, without the tokens for beginning and end."""
    return [pipe.components[tokenizer](text).input_ids[1:-1] for text in texts]


def read(pipe, tokenizer, encoder, own, hidden):
    """Return the encoder's pooled output for token ids; None stands for a token that the attention mask leaves out."""
    known = pipe.components[tokenizer]
    ids = [known.bos_token_id, *(known.bos_token_id if token is None else token for token in own), known.eos_token_id]
    mask = [1, *(token is not None for token in own), 1]
    with torch.no_grad():
        output = pipe.components[encoder](torch.tensor([ids]), attention_mask=torch.tensor([mask]))
    return output[hidden][0].double().numpy()


def away_from(vectors, x):
    """Return the component of x that is orthogonal to the span of some vectors: the residual of least squares."""
    columns = np.stack(vectors).T
    return x - columns @ np.linalg.lstsq(columns, x, rcond=None)[0]


def reference(pipe, text, given, *, tokenizer="tokenizer", encoder="text_encoder", hidden="pooler_output"):
    """Return two versions of a prompt's embeddings by SAFREE's equations, both [L, D].

    In the first, only the tokens close to a concept are projected; in the second, all tokens are.
    """
    concepts = [read(pipe, tokenizer, encoder, own, hidden) for own in listed(pipe, tokenizer, CONCEPTS)]
    (own,) = listed(pipe, tokenizer, [text])
    masked = [read(pipe, tokenizer, encoder, [*own[:i], None, *own[i + 1 :]], hidden) for i in range(len(own))]
    distance = [np.linalg.norm(away_from(concepts, p)) for p in masked]
    projection = np.stack([away_from(concepts, e - away_from(masked, e)) for e in given])
    merged = given.copy()
    for i, d in enumerate(distance):
        if d >= 1.01 * np.mean(distance[:i] + distance[i + 1 :]):
            merged[i + 1] = projection[i + 1]
    return merged, projection


def calls_of_the_denoiser(pipe, texts):
    """Run SAFREE on texts, and return the keyword arguments of every call of the denoiser."""
    calls = []

    def keep(_module, _args, kwargs, _output):
        calls.append(kwargs)

    hook = pipe.unet.register_forward_hook(keep, with_kwargs=True)
    try:
        task = Task(pipe, STEPS, 5.0, CONCEPTS)
        method("safree").generate(task, range(len(texts)), [Prompt(text, "", ()) for text in texts])
    finally:
        hook.remove()
    return calls


def encoded(pipe, texts):
    """Return the embeddings and the pooled embeddings to which the pipeline itself encodes texts."""
    with torch.no_grad():
        return pipe.encode_prompt(texts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)


def of_xl(pipe, text):
    given = encoded(pipe, [text])[0][0]
    second = {"tokenizer": "tokenizer_2", "encoder": "text_encoder_2", "hidden": "text_embeds"}
    merged, _ = reference(pipe, text, given[:, -WIDTH:].double().numpy(), **second)
    return given, merged


def test_the_second_encoders_tokens_are_projected_as_the_equations_say(xl):
    calls = calls_of_the_denoiser(xl, [TEXT])
    given, merged = of_xl(xl, TEXT)
    embeddings = calls[0]["encoder_hidden_states"][1]
    assert np.abs(merged - given[:, -WIDTH:].numpy()).max() > 0.1
    np.testing.assert_allclose(embeddings[:, -WIDTH:].numpy(), merged, atol=1e-4)


def test_the_first_encoders_tokens_and_the_pooled_embedding_stay_the_prompts(xl):
    call = calls_of_the_denoiser(xl, [TEXT])[0]
    given = encoded(xl, [TEXT])
    assert torch.equal(call["encoder_hidden_states"][1][:, :-WIDTH], given[0][0][:, :-WIDTH])
    assert torch.equal(call["added_cond_kwargs"]["text_embeds"][1], given[2][0])


def test_the_list_is_the_negative_prompt_with_its_own_pooled_embedding(xl):
    call = calls_of_the_denoiser(xl, [TEXT])[0]
    negative = encoded(xl, [", ".join(CONCEPTS)])
    assert torch.equal(call["encoder_hidden_states"][0], negative[0][0])
    assert torch.equal(call["added_cond_kwargs"]["text_embeds"][0], negative[2][0])


def test_the_projection_is_used_at_every_step_with_two_encoders(xl):
    calls = calls_of_the_denoiser(xl, [TEXT])
    assert len(calls) == STEPS
    assert all(torch.equal(call["encoder_hidden_states"], calls[0]["encoder_hidden_states"]) for call in calls)


def test_prompts_of_one_batch_are_projected_as_they_are_alone(xl):
    both = calls_of_the_denoiser(xl, [TEXT, "a bolt"])[0]["encoder_hidden_states"][2:]
    alone = [calls_of_the_denoiser(xl, [text])[0]["encoder_hidden_states"][1] for text in (TEXT, "a bolt")]
    torch.testing.assert_close(both, torch.stack(alone))


def test_a_prompt_without_words_is_left_as_it_is(xl):
    call = calls_of_the_denoiser(xl, [""])[0]
    assert torch.equal(call["encoder_hidden_states"][1], encoded(xl, [""])[0][0])


def test_a_pipeline_without_the_first_encoder_is_projected_whole(xl):
    parts = {**xl.components, "text_encoder": None, "tokenizer": None}
    refiner = StableDiffusionXLImg2ImgPipeline(**{**parts, "requires_aesthetics_score": True})
    p_c = projector(pooled(refiner, *tokens(refiner, CONCEPTS)))
    embeddings, _ = filtered(refiner, p_c, TEXT)
    np.testing.assert_allclose(embeddings.numpy(), of_xl(xl, TEXT)[1], atol=1e-4)


def test_one_encoders_tokens_are_projected_as_the_equations_say(plain):
    given = encoded(plain, [TEXT])[0][0]
    merged, _ = reference(plain, TEXT, given.double().numpy())
    embeddings = calls_of_the_denoiser(plain, [TEXT])[0]["encoder_hidden_states"][1]
    assert np.abs(merged - given.numpy()).max() > 0.1
    np.testing.assert_allclose(embeddings.numpy(), merged, atol=1e-4)


def test_the_filter_compares_the_projections_of_all_tokens(plain):
    given = encoded(plain, [TEXT])[0][0].double().numpy()
    _, projection = reference(plain, TEXT, given)
    used = slice(len(plain.tokenizer(TEXT).input_ids))
    lengths = np.linalg.norm(given[used], axis=1) * np.linalg.norm(projection[used], axis=1)
    beta = 1 - np.mean((given[used] * projection[used]).sum(axis=1) / lengths)
    last = filtered(plain, projector(pooled(plain, *tokens(plain, CONCEPTS))), TEXT)[1]
    assert last == round(10 / (1 + np.exp(-5 * (10 * beta - 5.333)))) > 0


def test_a_second_encoder_that_pools_to_another_size_is_refused(xl, tmp_path):
    xl.save_pretrained(tmp_path)
    path = tmp_path / "text_encoder_2" / "config.json"
    path.write_text(path.read_text().replace('"projection_dim": 32', '"projection_dim": 16'))
    assert "of another size" in measured(str(tmp_path)).refused["safree"]
