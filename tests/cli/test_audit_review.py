from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.cli import run

if TYPE_CHECKING:
    from pathlib import Path

POLICY = {"name": "default", "revision": "2", "digest": "d" * 64, "mode": "enforce"}


def finding(probability: float, category: str = "nudity") -> dict[str, Any]:
    return {"category": category, "term": "exposed breasts", "probability": probability, "threshold": 0.5}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write a log of one generation of three images: a clear case that is blocked, a doubtful one, and a clean one."""
    sink = JsonlSink(tmp_path / "log")
    of = {"request": "r1", "policy": POLICY}
    sink.write(build("request.started", **of))
    for image, probability in ((0, 0.99), (1, 0.55)):
        sink.write(build("query", **of, image=image, step=3, findings=[finding(probability)], decision="steer"))
    sink.write(build("query", **of, image=0, findings=[finding(0.93)], decision="block"))
    for image in (1, 2):
        sink.write(build("query", **of, image=image, decision="none"))
    for image, decision in enumerate(("blocked", "steered", "clean")):
        sink.write(build("request.finished", **of, image=image, decision=decision))
    return tmp_path / "log"


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_blocked_images_are_one_row_each_with_why(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "show", str(log), "--images", "--decision", "blocked"])
    _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("r1/0")
    assert "blocked" in row
    assert "nudity (exposed breasts) 0.99 of 0.50 at step 3" in row


def test_an_image_that_came_out_clean_of_it_says_so(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "show", str(log), "--images", "--decision", "steered", "--json"])
    (row,) = document(capsys)["images"]
    assert row["why"] == "nudity (exposed breasts) 0.55 of 0.50 at step 3; not seen in the finished image"


def test_an_image_without_a_final_look_does_not_say_that_it_came_out_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = JsonlSink(tmp_path / "log")
    of = {"request": "r1", "policy": POLICY, "image": 0}
    sink.write(build("query", **of, step=3, findings=[finding(0.55)], decision="steer"))
    sink.write(build("request.finished", **of, decision="steered"))
    run(["audit", "show", str(tmp_path / "log"), "--images", "--json"])
    (row,) = document(capsys)["images"]
    assert row["why"] == "nudity (exposed breasts) 0.55 of 0.50 at step 3"


def test_candidates_are_images_with_weak_evidence(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "candidates", str(log), "--json"])
    candidates = document(capsys)
    assert candidates["acted_on"] == 2
    assert [(row["request"], row["image"]) for row in candidates["images"]] == [("r1", 1)]


def test_changes_say_who_when_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonlSink(tmp_path / "log")
    loaded = {"author": "ann", "approver": "bob", "reason": "fewer false alarms", "loosened": True}
    sink.write(build("policy.loaded", policy=POLICY, loaded=loaded))
    sink.write(build("policy.rejected", reason="it is not approved"))
    run(["audit", "changes", str(tmp_path / "log"), "--json"])
    loaded_, rejected = document(capsys)["changes"]
    assert loaded_["who"] == "by ann, approved by bob"
    assert loaded_["why"] == "fewer false alarms"
    assert loaded_["loosened"] is True
    assert rejected["event"] == "policy.rejected"
    assert rejected["why"] == "it is not approved"


def test_a_policy_that_workers_load_alike_is_one_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonlSink(tmp_path / "log")
    for _ in range(3):
        sink.write(build("policy.loaded", policy=POLICY))
    run(["audit", "changes", str(tmp_path / "log"), "--json"])
    assert len(document(capsys)["changes"]) == 1


def test_changes_are_a_table_for_people(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "hold", str(log), "r1", "--why", "complaint 7"])
    capsys.readouterr()
    run(["audit", "changes", str(log)])
    assert "hold of r1" in capsys.readouterr().out


def test_what_was_seen_is_told_with_what_became_of_it(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "report", str(log), "--json"])
    assert document(capsys)["seen"] == {"nudity": {"blocked": 1, "steered": 1}}


def test_a_report_of_an_unknown_policy_is_refused(log: Path) -> None:
    assert run(["audit", "report", str(log), "--policy", "defualt"]) == 2


def test_a_report_in_markdown_loads_no_picture_from_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "![x](https://elsewhere.example/x.png)"
    of = {"request": "r1", "image": 0, "policy": {**POLICY, "name": name}}
    JsonlSink(tmp_path / "log").write(build("request.finished", **of, decision="clean"))
    run(["audit", "report", str(tmp_path / "log")])
    page = capsys.readouterr().out
    assert re.search(r"(?<!\\)[\[\]]", page) is None
    assert "https://" not in page
