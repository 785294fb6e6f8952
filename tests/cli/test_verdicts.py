"""Verdicts are given on the command line, and feed reports, cases and calibration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.cli import run
from dnp_guard.policy import load_policy

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write a log of eight blocked images and a clean one, under the policy of the embedded model."""
    sink = JsonlSink(tmp_path / "log")
    policy = load_policy("glyphs")
    of = {
        "policy": {"name": policy.name, "revision": policy.revision, "digest": policy.digest, "mode": "enforce"},
        "vlm": {"name": "glyphs", "revision": "1"},
    }
    for number in range(8):
        finding = {"category": "star", "term": "a star", "probability": 0.55 + number / 20, "threshold": 0.5}
        request = f"r{number}"
        sink.write(build("request.started", request=request, **of))
        for step in ({"step": 3}, {}):
            sink.write(build("query", request=request, image=0, findings=[finding], decision="block", **step, **of))
        sink.write(build("request.finished", request=request, image=0, decision="blocked", **of))
    sink.write(build("request.finished", request="clean", image=0, decision="clean", **of))
    for number in range(8):
        verdict = "false_alarm" if number < 4 else "right"
        run(["audit", "verdict", str(tmp_path / "log"), f"r{number}", verdict, "--by", "ann"])
    return tmp_path / "log"


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_verdict_is_recorded_with_the_policy_of_its_image(log: Path) -> None:
    record = next(item for item in Log(log) if item["event"] == "verdict")
    assert record["request"] == "r0"
    assert record["verdict"] == "false_alarm"
    assert record["by"] == "ann"
    assert record["policy"]["name"] == "glyphs"


@pytest.mark.parametrize(
    "wrong", [["r9", "right"], ["r1", "wrong"], ["r1", "right", "--image", "3"], ["r1", "right", "--by", " "]]
)
def test_a_verdict_on_nothing_is_refused(wrong: list[str], log: Path) -> None:
    assert run(["audit", "verdict", str(log), "--by", "ann", *wrong]) == 2


def test_the_report_has_error_rates_with_intervals(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "verdict", str(log), "clean", "missed", "--by", "ann"])
    capsys.readouterr()
    run(["audit", "report", str(log), "--json"])
    rates = {(rate["error"], rate["category"]): rate for rate in document(capsys)["reviews"]["rates"]}
    alarms = rates["false_alarm", "star"]
    assert alarms["count"] == 4
    assert alarms["of"] == 8
    assert alarms["low"] == 0.2152
    assert alarms["high"] == 0.7848
    assert rates["missed", None]["count"] == 1
    assert rates["missed", None]["of"] == 1


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_the_report_says_what_people_say(name: str, log: Path, tmp_path: Path) -> None:
    run(["audit", "report", str(log), "--out", str(tmp_path / name)])
    assert "50.0 % (21.5 to 78.5 %)" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_transparency_report_is_figures_with_intervals(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run(["audit", "report", str(log), "--format", "csv"])
    rows = [line.split(",")[2:] for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["measure", "category", "count", "of", "low", "high"]
    assert ["judged false_alarm", "star", "4", "8", "0.2152", "0.7848"] in rows
    assert ["images blocked", "star", "8", "9", "", ""] in rows


def test_people_who_are_divided_count_as_no_verdict(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "verdict", str(log), "r0", "right", "--by", "bob"])
    capsys.readouterr()
    run(["audit", "report", str(log), "--json"])
    reviews = document(capsys)["reviews"]
    assert reviews["agreement"] == {"same": 0, "pairs": 1}
    assert reviews["rates"][0]["of"] == 7


def test_a_later_verdict_of_a_person_replaces_the_earlier(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "verdict", str(log), "r0", "right", "--by", "ann"])
    capsys.readouterr()
    run(["audit", "report", str(log), "--json"])
    assert document(capsys)["reviews"]["rates"][0]["count"] == 3


def test_false_alarms_become_cases_that_the_policy_fails(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = tmp_path / "verdicts.test.yaml"
    code = run(["policy", "cases", "glyphs", "--from-verdicts", str(log), "--out", str(tests)])
    capsys.readouterr()
    assert code == 0
    assert run(["policy", "test", str(tests), "--json"]) == 1
    cases = [case for file in document(capsys)["files"] for case in file["cases"]]
    assert [case["ok"] for case in cases] == [False] * 4 + [True] * 4


def test_verdicts_calibrate_a_threshold(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calibration.json"
    asked = ["--from-verdicts", str(log), "--policy", "glyphs", "--rate", "0", "--out", str(out), "--json"]
    code = run(["vlm", "calibrate", *asked])
    (star,) = document(capsys)["categories"]["star"]
    assert code == 0
    assert star["n"] == 8
    assert star["positives"] == 4
    assert star["auc"] == 1.0
    assert star["threshold"] == 0.71


def test_a_log_without_verdicts_calibrates_nothing(tmp_path: Path) -> None:
    JsonlSink(tmp_path / "log").write(build("request.finished", request="r1", image=0, decision="clean"))
    assert run(["vlm", "calibrate", "--from-verdicts", str(tmp_path / "log"), "--policy", "glyphs"]) == 2
