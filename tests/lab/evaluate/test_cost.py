import pytest

from dnp_guard.glyphs import VLM
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.evaluate.cost import ANYWHERE, KINDS, FixedAnswers, machine, measure
from dnp_guard.lab.evaluate.random_models import llava, pipeline

pytestmark = pytest.mark.models


class Counting:
    def __init__(self):
        self.asked = 0

    def ask(self, images, questions):
        self.asked += len(images)
        return [[0.5] * len(questions) for _ in images]


@pytest.mark.parametrize("yes", [True, False])
def test_a_told_model_is_asked_and_its_answer_is_not_its_own(yes):
    model = Counting()
    assert FixedAnswers(model, yes=yes).ask(["a", "b"], ["p", "q"]) == [[float(yes), 0.0]] * 2
    assert model.asked == 2


@pytest.fixture(scope="module")
def embedded():
    heard = []
    pipe = load_pipeline()
    return measure(pipe, VLM, batches=[1, 2], steps=6, rounds=2, advance=lambda: heard.append(1)), heard, pipe


def test_every_kind_is_measured_at_every_size(embedded):
    costs, heard, _ = embedded
    assert [(cost.batch, cost.kind) for cost in costs] == [(batch, kind) for batch in (1, 2) for kind in KINDS]
    assert len(heard) == 2 * len(KINDS) * 3


def test_unguarded_is_what_all_are_measured_by(embedded):
    for cost in embedded[0]:
        assert cost.seconds > 0
        if cost.kind == "unguarded":
            assert cost.ratio == 1.0
            assert cost.ratio_ci95 == (1.0, 1.0)
            assert cost.stages == {}


def test_only_a_guard_that_steers_evaluates_once_more(embedded):
    stages = {cost.kind: cost.stages for cost in embedded[0] if cost.batch == 2}
    assert "evaluate" in stages["guarded-steering"]
    assert "evaluate" not in stages["guarded-clean"]
    assert {"preview", "ask", "judge"} <= set(stages["guarded-clean"])


def test_the_unqueried_step_is_told_apart(embedded):
    assert {cost.kind == "unqueried" for cost in embedded[0] if cost.step_ratio is not None} == {True}
    assert {cost.kind == "unqueried" for cost in embedded[0] if cost.step_ratio is None} == {False}


def test_the_machine_is_named(embedded):
    description = machine(embedded[2])
    assert description["device"] == "cpu"
    assert description["processor"]


@pytest.mark.parametrize(("model", "kinds"), [("tiny-sd15", KINDS), ("tiny-sdxl", KINDS), ("tiny-flux", ANYWHERE)])
def test_the_published_architectures_are_measured_with_random_weights(model, kinds):
    pipe = pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    costs = measure(pipe, llava(tiny=True), batches=[1], steps=3, rounds=1)
    assert tuple(cost.kind for cost in costs) == kinds
    for cost in costs:
        assert cost.steps_per_second > 0
        assert cost.gpu_seconds is None
    assert "evaluate" in next(cost for cost in costs if cost.kind == "guarded-steering").stages
