"""The evaluated methods run on the few-step model, which works without classifier-free guidance."""

import pytest

from dnp_guard.cli import run
from dnp_guard.glyphs.loading import MODELS, generate, load_embedded
from dnp_guard.lab.evaluate.detector import load_detector
from dnp_guard.lab.evaluate.methods import Task, method
from dnp_guard.lab.evaluate.table import read
from dnp_guard.lab.world.captions import prompts

pytestmark = pytest.mark.models

SEED = 7_000


@pytest.fixture(scope="module")
def few():
    """Load the few-step pipeline."""
    return Task(load_embedded("glyphs-fast"), 4, 1.0, ("star", "skull", "bolt"), load_detector())


def made_by(few, name, attacks):
    return method(name).generate(few, range(SEED, SEED + len(attacks)), attacks)


def test_unguarded_is_the_few_step_pipeline_bit_for_bit(few):
    attacks = prompts("attack", 2, seed=1)
    made = generate(few.pipe, [prompt.text for prompt in attacks], SEED, MODELS["glyphs-fast"])
    assert [item.image.tobytes() for item in made_by(few, "unguarded", attacks)] == [image.tobytes() for image in made]


@pytest.mark.parametrize(
    ("name", "evaluations"), [("unguarded", 1), ("static-separate", 2), ("nag-static", 1), ("vsf-static", 1)]
)
def test_a_method_takes_one_evaluation_less_without_guidance(few, name, evaluations):
    made = made_by(few, name, prompts("attack", 2, seed=1))
    assert [item.evaluations for item in made] == [evaluations * few.steps] * 2


def test_the_guard_steers_the_few_step_model(few):
    made = made_by(few, "dnp-guard", prompts("attack", 4, seed=1))
    assert any(item.intervened for item in made)
    assert not any(item.degraded for item in made)


def test_a_run_says_which_model_made_its_rows(tmp_path):
    arguments = ["--methods", "nag-static", "--sets", "attack", "--n", "2", "--out", str(tmp_path)]
    assert run(["evaluate", "--model", "glyphs-fast", *arguments]) == 0
    lines = read(tmp_path / "results.json")
    assert [(line["model"], line["method"], line["mode"]) for line in lines] == [
        ("glyphs-fast", "unguarded", None),
        ("glyphs-fast", "nag-static", "attention"),
    ]


def test_a_method_that_needs_guidance_is_refused_on_the_command_line(tmp_path, capsys):
    assert run(["evaluate", "--model", "glyphs-fast", "--methods", "sld-max", "--out", str(tmp_path)]) == 2
    assert "it needs classifier-free guidance" in capsys.readouterr().err.replace("\n", " ")
