"""The backends read the answers of a real ``transformers serve``."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dnp_guard import Guard
from dnp_guard.cli import checks
from dnp_guard.errors import VlmTimeout, VlmUnavailable
from dnp_guard.glyphs.scene import Glyph, Scene, render
from dnp_guard.testing import BackendContract
from dnp_guard.vlm import Desk
from dnp_guard.vlm.plugin import build
from tests.policies import policy

pytestmark = pytest.mark.models

QUESTIONS = ("is there a star in this image ?", "is there a skull in this image ?", "is there a circle in this image ?")


@pytest.fixture(scope="module", params=["systemone", "openai"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def backend(kind, served):
    made = build(f"{kind}:{served[0]}@{served[1]}")
    yield made
    made.close()


class TestContract(BackendContract):
    questions = QUESTIONS

    @pytest.fixture
    def backend(self, backend):
        return backend


def test_doctor_says_how_a_server_answers(kind, served):
    entry = checks.vlm(f"{kind}:{served[0]}@{served[1]}")
    how = {"systemone": "answers in probabilities", "openai": "answers in text, by text"}
    assert entry.status == "ok"
    assert how[kind] in entry.found


def test_the_server_sees_the_picture_that_is_sent(served):
    backend = build(f"openai:{served[0]}@{served[1]}")
    rng = np.random.default_rng(0)
    star, circle = (
        Image.fromarray(render(Scene("night", (Glyph("yellow", shape),)), rng)) for shape in ("star", "circle")
    )
    answers = backend.ask([star, circle], ["is there a star in this image ?"])
    backend.close()
    assert answers == [[1.0], [0.0]]


def test_a_model_that_is_not_served_is_unavailable(served):
    with pytest.raises(VlmUnavailable, match="404"):
        build(f"decisions:{served[0]}@{served[1]}")


def test_a_deadline_ends_a_question_and_the_next_is_answered(backend):
    picture = Image.new("RGB", (32, 32))
    desk = Desk(backend)
    with pytest.raises(VlmTimeout):
        desk.ask([picture], QUESTIONS, deadline_ms=1)
    assert len(desk.ask([picture], QUESTIONS, deadline_ms=30_000).probabilities[0]) == 3
    desk.close()


def test_a_policy_must_agree_to_answers_in_text(served):
    backend = build(f"openai:{served[0]}@{served[1]}")
    with pytest.raises(VlmUnavailable, match="text"):
        Guard(policy(), vlm=backend)
    Guard(policy(question={"answer": "text"}), vlm=backend).close()
    Guard(policy(mode="shadow"), vlm=backend).close()
    backend.close()
