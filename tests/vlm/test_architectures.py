"""Tiny models of real vision-language architectures fulfil the contract for backends."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from dnp_guard.errors import VlmBadAnswer, VlmUnavailable
from dnp_guard.testing import BackendContract
from dnp_guard.vlm.local import forms
from dnp_guard.vlm.local.backend import TransformersBackend
from dnp_guard.vlm.local.generated import TextBackend
from dnp_guard.vlm.plugin import build
from tests.vlm import architectures

# PaliGemma's processor hands tensors to numpy functions
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

QUESTIONS = ("is there a star in this image ?", "is there a skull in this image ?", "is there a red circle ?")
RED, DARK = Image.new("RGB", (32, 32), (230, 40, 30)), Image.linear_gradient("L").resize((32, 32)).convert("RGB")

FORMS = {
    "shieldgemma2": forms.SHIELDGEMMA2,
    "mllama as Llama Guard": forms.LLAMA_GUARD,
    "llava as LlavaGuard": forms.LLAVAGUARD,
}
CASES = {name: forms.PLAIN for name in architectures.BUILD if name != "shieldgemma2"} | FORMS


@pytest.fixture(scope="module", params=CASES)
def backend(request):
    made = architectures.build(request.param.split(" as ")[0])
    return TransformersBackend(made, form=CASES[request.param])


class TestContract(BackendContract):
    questions = QUESTIONS

    @pytest.fixture
    def backend(self, backend):
        return backend


def test_pictures_and_questions_change_the_answers(backend):
    (red, dark) = backend.ask([RED, DARK], QUESTIONS)
    assert red != pytest.approx(dark, abs=1e-6)
    assert len({round(p, 6) for p in red}) > 1


def test_each_picture_is_seen_once_for_all_questions(backend, monkeypatch):
    inner = getattr(backend.reader.model, "model", backend.reader.model)
    tower = next(getattr(inner, name) for name in ("vision_tower", "visual", "vision_model") if hasattr(inner, name))
    seen, forward = [], tower.forward
    monkeypatch.setattr(
        tower, "forward", lambda *args, **kwargs: seen.append(_pixels(args, kwargs)) or forward(*args, **kwargs)
    )
    backend.ask([RED, DARK], QUESTIONS[:1])
    once = sum(seen)
    seen.clear()
    backend.ask([RED, DARK], QUESTIONS)
    assert sum(seen) == once


def _pixels(args, kwargs):
    tensors = [tensor for tensor in (*args, *kwargs.values()) if isinstance(tensor, torch.Tensor)]
    return max(tensor.numel() for tensor in tensors)


def test_pictures_of_several_sizes_are_answered_as_one_by_one(backend):
    wide, tall = RED.resize((64, 32)), DARK.resize((32, 64))
    alone = [backend.ask([picture], QUESTIONS)[0] for picture in (RED, wide, tall)]
    together = backend.ask([RED, wide, tall], QUESTIONS)
    assert together == [pytest.approx(row, abs=1e-4) for row in alone]


def test_shieldgemma_answers_as_its_own_classifier_does():
    model, processor = architectures.build("shieldgemma2")
    policy = forms.SHIELDGEMMA2.ask(QUESTIONS[0])
    inputs = processor(images=[RED], custom_policies={"q": policy}, policies=["q"], return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).probabilities[0, 0].item()
    # The classifier reads "Yes" and "No" only; other spellings would weigh too, so its vocabulary is cut to these.
    backend = TransformersBackend((model, processor), form=forms.SHIELDGEMMA2)
    words = processor.tokenizer
    object.__setattr__(backend.reader, "yes", (words.convert_tokens_to_ids("Yes"),))
    object.__setattr__(backend.reader, "no", (words.convert_tokens_to_ids("No"),))
    assert backend.ask([RED], QUESTIONS[:1])[0][0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["shieldgemma2", "llavaguard", "llamaguard"])
def test_a_form_is_named_by_the_spec(kind, tmp_path):
    name = {"shieldgemma2": "shieldgemma2", "llavaguard": "llava", "llamaguard": "mllama"}[kind]
    for part in architectures.build(name):
        part.save_pretrained(tmp_path)
    backend = build(f"{kind}:{tmp_path}")
    assert backend.reader.form is forms.BY_KIND[kind]
    assert len(backend.ask([RED], QUESTIONS)[0]) == 3


def test_the_answer_of_a_form_begins_where_its_word_is_expected():
    backend = TransformersBackend(architectures.build("idefics3"), form=forms.LLAVAGUARD)
    assert backend.reader.prompt("a star?").endswith('assistant :{\n"rating": "')


@pytest.mark.parametrize("token", ["<image>", "</s>", "<s>", "<im<image>age>"])
def test_control_tokens_in_a_question_are_only_text_that_is_left_out(token):
    reader = TransformersBackend(architectures.build("idefics3")).reader
    prompt = reader.prompt(f"is there {token} a star ?")
    assert prompt.count("<image>") == 1
    assert "</s>" not in prompt
    assert prompt.endswith("a star ? assistant :")


def test_words_that_begin_with_the_same_token_are_refused():
    same = forms.Form("${question}", "star", "star", whole=False)
    with pytest.raises(VlmUnavailable, match="same token"):
        TransformersBackend(architectures.build("idefics3"), form=same)


def test_text_is_generated_and_read_strictly(llava):
    backend = TextBackend(llava)
    backend.say = lambda image, question, most_tokens: {"a?": "yes .", "b?": "no", "c?": "star"}[question]
    assert backend.ask([RED], ["a?", "b?"]) == [[1.0, 0.0]]
    with pytest.raises(VlmBadAnswer, match="neither"):
        backend.ask([RED], ["c?"])


@pytest.fixture(scope="module")
def embedded():
    from dnp_guard import glyphs

    return TextBackend(glyphs.VLM)


@pytest.mark.models
class TestContractOfTextFromTheEmbeddedModel(BackendContract):
    questions = QUESTIONS

    @pytest.fixture
    def backend(self, embedded):
        assert embedded.answers == "text"
        return embedded
