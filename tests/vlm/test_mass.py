"""Local models are refused if they prefer other words to yes and no, and different models have different revisions."""

from __future__ import annotations

import json
import logging
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from dnp_guard import glyphs
from dnp_guard.errors import VlmBadAnswer, VlmUnavailable
from dnp_guard.policy import load_policy
from dnp_guard.policy.force.admission import refuse_uncalibrated
from dnp_guard.policy.model.calibration import Calibrated
from dnp_guard.vlm.base import Backend
from dnp_guard.vlm.local import backend as module
from dnp_guard.vlm.local.backend import TransformersBackend
from dnp_guard.vlm.local.forms import PLAIN, TOLD
from dnp_guard.vlm.local.forward import Reader
from dnp_guard.vlm.local.weights import digest, find, weights_digest
from dnp_guard.vlm.worded_answers import noise

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = Image.new("RGB", (32, 32), "red")


class Strict(TransformersBackend):
    """A backend with the default limit on the mass of yes and no, which other tests lower for random weights."""

    least_mass = 0.5


def reader(yes: float, no: float, others: float) -> tuple[Reader, torch.Tensor]:
    """Return a reader without a model, and logits of six tokens: two spellings each of yes and no, and two others.

    Args:
        yes: probability of both spellings of yes together.
        no: probability of both spellings of no together.
        others: probability of the other tokens together.
    """
    made = Reader(None, None, (0, 1), (2, 3), 1)  # type: ignore[arg-type]  # no model is needed
    shares = torch.tensor([yes / 2, yes / 2, no / 2, no / 2, others / 2, others / 2])
    return made, shares.log()[None]


@pytest.mark.parametrize(("yes", "no", "others"), [(0.9, 0.09, 0.01), (0.45, 0.15, 0.4), (0.001, 0.998, 0.001)])
def test_the_probability_is_that_of_yes_among_the_answers(yes: float, no: float, others: float) -> None:
    made, logits = reader(yes, no, others)
    assert made.log_odds(logits).sigmoid().item() == pytest.approx(yes / (yes + no), abs=1e-5)


@pytest.mark.parametrize(("yes", "no", "others"), [(1e-7, 3e-7, 1), (2e-6, 1e-6, 1), (0.2, 0.25, 0.55)])
def test_answers_made_of_noise_are_refused(yes: float, no: float, others: float) -> None:
    made, logits = reader(yes, no, others)
    with pytest.raises(VlmBadAnswer, match="of the probability"):
        made.log_odds(logits)


def test_one_answer_of_noise_among_others_is_refused() -> None:
    made, good = reader(0.9, 0.09, 0.01)
    with pytest.raises(VlmBadAnswer, match="of the probability"):
        made.log_odds(torch.cat([good, reader(1e-7, 3e-7, 1)[1]]))


def test_a_model_that_would_rather_say_something_else_is_refused_with_what_to_do(llava: tuple[Any, Any]) -> None:
    with pytest.raises(VlmUnavailable, match=r'"yes" and "no" have .* of the probability') as raised:
        Strict(llava)
    assert "enable_thinking: false" in raised.value.hint


def test_the_embedded_model_says_yes_or_no() -> None:
    assert Strict(glyphs.VLM).reader.form == PLAIN


def test_a_model_that_answers_at_length_is_told_what_to_answer_with(
    llava: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.plain

    def at_length(asked: Reader, *rest: Any) -> torch.Tensor:
        if asked.form != TOLD:
            raise noise('"yes" and "no"', 0.1)
        return real(asked, *rest)

    monkeypatch.setattr(module, "plain", at_length)
    backend = TransformersBackend(llava)
    assert backend.reader.prompt("a star?").count("a star? Answer with yes or no.") == 1


def test_a_question_is_rendered_without_a_warning(llava: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    backend, logger = TransformersBackend(llava), logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        backend.reader.prompt("a star?")
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_a_model_that_thinks_is_asked_for_its_answer_at_once(llava: tuple[Any, Any]) -> None:
    model, processor = llava
    template = processor.chat_template
    closed = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    try:
        processor.chat_template = template + closed
        assert TransformersBackend((model, processor)).reader.prompt("a star?").endswith("<think></think>")
    finally:
        processor.chat_template = template


@pytest.fixture
def folder(llava_folder: Path, tmp_path: Path) -> Path:
    """Copy the saved model to a folder whose files a test may change."""
    return shutil.copytree(llava_folder, tmp_path / "model")


def swapped(folder: Path) -> None:
    """Exchange the token ids of yes and no in a saved model's vocabulary."""
    file = folder / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    ids = {word: int(re.search(rf'"{word}": ?(\d+)', text)[1]) for word in ("yes", "no")}  # type: ignore[index]
    for word, other in (("yes", "no"), ("no", "yes")):
        text = re.sub(rf'("{word}": ?)\d+', rf"\g<1>{ids[other]}", text)
    file.write_text(text, encoding="utf-8")


def lengthened(name: str) -> Any:
    def change(folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(" ")

    return change


CHANGES = {
    "tokenizer": swapped,
    "configuration": lengthened("config.json"),
    "processor": lengthened("processor_config.json"),
    "template": lengthened("chat_template.jinja"),
    "special tokens": lengthened("tokenizer_config.json"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_what_answers_beside_the_weights_is_another_revision(folder: Path, name: str) -> None:
    before = find(folder).revision
    CHANGES[name](folder)
    assert find(folder).revision != before
    with pytest.raises(VlmUnavailable, match="not the pinned"):
        find(folder, revision=before)


def test_what_does_not_answer_is_not_in_the_revision(folder: Path) -> None:
    before = find(folder).revision
    (folder / "README.md").write_text("Notes.")
    assert find(folder).revision == before


def test_a_pin_of_the_weights_alone_says_what_to_pin(folder: Path) -> None:
    with pytest.raises(VlmUnavailable, match="weights alone, as earlier versions") as raised:
        find(folder, revision=weights_digest(folder)[:12])
    assert digest(folder)[:12] in raised.value.hint


def test_a_calibration_from_before_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(_calibration("tiny", "0" * 12)))
    (tmp_path / "p.yaml").write_text(
        "format: 1\nname: p\ncategories: [{id: star, title: Star, definition: A star., negative: [star], "
        "calibration: c.json}]\n"
    )
    policy = load_policy(tmp_path / "p.yaml")
    assert isinstance(policy.category("star").calibration, Calibrated)
    with pytest.raises(VlmUnavailable) as raised:
        refuse_uncalibrated(policy, _Backend())
    assert "write 111111111111 as vlm.revision in c.json" in raised.value.hint


class _Backend(Backend):
    name, revision = "tiny", "1" * 12


def _calibration(name: str, revision: str) -> dict[str, Any]:
    measured = {"begin": 0, "end": 1, "threshold": 0.5, "n": 10, "positives": 5}
    return {"format": 1, "vlm": {"name": name, "revision": revision}, "categories": {"star": [measured]}}
