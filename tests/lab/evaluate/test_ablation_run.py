import json

import pytest

from dnp_guard.cli import run
from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.ablation_run import FILE, markdown, measure, read
from dnp_guard.lab.evaluate.ablations import ablation
from dnp_guard.lab.evaluate.design import EvaluationPlan
from dnp_guard.lab.evaluate.prompt_sets import embedded_set
from dnp_guard.policy import load_policy

ROWS = (ablation("every step"), ablation("as shipped"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measure two ablations on a single prompt."""
    out = tmp_path_factory.mktemp("ablations")
    plan = EvaluationPlan({"benign": embedded_set("benign")[:1]}, (), (), load_policy("glyphs"), 0, 25, 5.0)
    return plan, out, measure(plan, out, ROWS)


def test_every_row_has_its_ablation_and_is_of_the_guard(measured):
    _, _, lines = measured
    assert [(line["ablation"], line["set"], line["method"]) for line in lines] == [
        ("every step", "benign", "dnp-guard"),
        ("as shipped", "benign", "dnp-guard"),
    ]


def test_a_row_is_measured_under_its_own_policy(measured):
    _, _, (every, shipped) = measured
    assert shipped["queries"] < every["queries"] == 14


def test_a_measured_row_is_not_measured_again(measured):
    plan, out, lines = measured
    heard = []
    assert measure(plan, out, ROWS, lambda ablation: lambda done: heard.append((ablation.name, done))) == lines
    assert heard == [("every step", 1), ("as shipped", 1)]


def test_the_table_is_written_and_read_again(measured):
    _, out, lines = measured
    assert read(out / FILE) == lines
    assert "| as shipped | 0.0%" in markdown(lines, ROWS)


def test_a_table_that_is_none_is_refused(tmp_path):
    with pytest.raises(DnpGuardError, match="no table of ablations"):
        read(tmp_path / FILE)


def test_the_command_measures_the_ablations(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "dnp_guard.lab.evaluate.ablation_run.measure.__defaults__", (ROWS[:1], lambda _: lambda _: None)
    )
    code = run(["evaluate", "--ablations", "--sets", "benign", "--n", "1", "--out", str(tmp_path / "out"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [line["ablation"] for line in document["results"]] == ["every step"]
    assert (tmp_path / "out" / "ablations.md").exists()
