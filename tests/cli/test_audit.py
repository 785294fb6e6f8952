from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dnp_guard.audit import previews
from dnp_guard.audit.chain import ZERO, seal
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write an audit log of two generations."""
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    finding = {"category": "nudity", "term": "t", "probability": 0.9, "threshold": 0.5}
    sink.write(build("query", request="r1", image=0, step=3, steps=30, sigma=7.25, findings=[finding]))
    sink.write(build("request.finished", request="r1", image=0, decision="steered"))
    sink.write(build("request.finished", request="r2", image=0, decision="clean"))
    return path


@pytest.fixture
def edited(log: Path) -> Path:
    """Return the log after somebody has edited its second line."""
    log.write_bytes(log.read_bytes().replace(b"steered", b"blocked"))
    return log


def test_verify_says_that_a_log_is_unbroken(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "verify", str(log)])
    assert code == 0
    assert capsys.readouterr().out.split(";")[0] == f"{log}: 3 records, unbroken"


def test_verify_names_the_line_of_an_edit_on_stderr(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "verify", str(edited)])
    assert code == 1
    assert f"{edited}:2:0: the record does not have the hash it carries" in capsys.readouterr().err


def test_verify_prints_a_few_of_many_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").write_text("x\n" * 50)
    run(["audit", "verify", str(tmp_path / "other")])
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == 20
    assert "50 problems, the rest with --json" in output.out


def test_verify_prints_one_json_document(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "verify", str(edited), "--json"])
    document = json.loads(capsys.readouterr().out)
    (error,) = document.pop("errors")
    head = json.loads(edited.read_bytes().splitlines()[0])["hash"]
    assert code == 1
    assert document == {"ok": False, "records": 2, "purged": 0, "head_hash": head}
    assert {key: error[key] for key in ("file", "line", "column", "code")} == {
        "file": str(edited),
        "line": 2,
        "column": 0,
        "code": "hash-mismatch",
    }


def test_a_torn_log_is_repaired_into_a_separate_file(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = log.read_bytes()
    log.write_bytes(whole[:-9])
    repaired = log.with_name("repaired.jsonl")
    code = run(["audit", "verify", str(log), "--repair", str(repaired)])
    assert code == 0
    assert log.read_bytes() == whole[:-9]
    assert repaired.read_bytes() == b"".join(whole.splitlines(True)[:2])
    assert "ends before its newline" in capsys.readouterr().err
    assert run(["audit", "verify", str(repaired)]) == 0


def test_a_log_that_was_tampered_with_is_not_repaired(edited: Path) -> None:
    edited.write_bytes(edited.read_bytes()[:-9])
    code = run(["audit", "verify", str(edited), "--repair", str(edited.with_name("repaired.jsonl"))])
    assert code == 1
    assert not edited.with_name("repaired.jsonl").exists()


def test_a_repair_never_writes_over_a_file(log: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("kept")
    code = run(["audit", "verify", str(log), "--repair", str(tmp_path / "there")])
    assert code == 2
    assert (tmp_path / "there").read_text() == "kept"


@pytest.mark.parametrize("command", ["verify", "show"])
def test_a_missing_log_is_unreadable_input(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", command, str(tmp_path / "missing.jsonl")])
    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert len(output.err.splitlines()) == 2


def test_show_lists_generations(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "show", str(log)])
    _, *rows = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [row.split()[0] for row in rows] == ["r1", "r2"]


@pytest.mark.parametrize("filters", [["--category", "nudity"], ["--decision", "steered"], ["--request", "r1"]])
def test_show_filters(filters: list[str], log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "show", str(log), "--json", *filters])
    assert [generation["request"] for generation in json.loads(capsys.readouterr().out)["generations"]] == ["r1"]


def test_show_of_one_generation_is_a_timeline(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "show", str(log), "--request", "r1"])
    assert "nudity ███████░ 0.90" in capsys.readouterr().out


def test_show_of_one_generation_has_its_records_in_json(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "show", str(log), "--request", "r1", "--json"])
    (generation,) = json.loads(capsys.readouterr().out)["generations"]
    assert [record["event"] for record in generation["records"]] == ["query", "request.finished"]


def test_show_of_an_unknown_generation_is_refused(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "show", str(log), "--request", "r7"])
    assert code == 2
    assert "no such generation: r7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("filters", "hint"),
    [
        (["--decision", "block"], "did you mean blocked?"),
        (["--category", "nudty"], "Valid here: nudity."),
        (["--policy", "strict"], "The log has no policy."),
    ],
)
def test_a_filter_that_nothing_can_meet_is_refused_with_what_is_valid(
    filters: list[str], hint: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["audit", "show", str(log), *filters])
    assert code == 2
    assert hint in capsys.readouterr().err


def test_the_beginning_of_an_id_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonlSink(tmp_path / "log")
    for request in ("f0843c", "a11"):
        sink.write(build("request.finished", request=request, image=0, decision="clean"))
    run(["audit", "show", str(tmp_path / "log"), "--request", "f08", "--json"])
    assert [generation["request"] for generation in json.loads(capsys.readouterr().out)["generations"]] == ["f0843c"]


def test_a_beginning_that_several_ids_have_is_refused(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "show", str(log), "--request", "r"])
    assert code == 2
    assert "2 generations begin with r: r1, r2" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["20", "80"])
def test_ids_are_never_cut(
    width: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    sink = JsonlSink(tmp_path / "log")
    policy = {"name": "a-policy-with-a-long-name", "revision": "1.0.0-rc.1"}
    sink.write(build("request.finished", request="f" * 32, image=0, decision="clean", policy=policy))
    run(["audit", "show", str(tmp_path / "log")])
    assert "f" * 32 in capsys.readouterr().out


def test_a_forged_record_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, _ = seal({**build("degraded", request="r1"), "reason": "\x1b]0;title\x07\x1b[2J"}, 0, ZERO)
    (tmp_path / "log").write_bytes(line + b"\n")
    run(["audit", "show", str(tmp_path / "log"), "--request", "r1"])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["show", "report", "export", "changes", "candidates"])
def test_a_file_that_is_no_log_is_unreadable_input(command: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("root:x:0:0\n")
    assert run(["audit", command, str(tmp_path / "other")]) == 2


@pytest.mark.parametrize("command", ["verify", "show", "report"])
def test_a_pipe_is_refused_and_not_waited_for(command: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert run(["audit", command, str(tmp_path / "pipe")]) == 2


def test_show_says_that_nothing_matched(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "show", str(log), "--decision", "blocked"])
    assert code == 0
    assert capsys.readouterr().out == "no generations\n"


def test_show_points_to_verify_where_a_line_is_no_record(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(log.read_bytes() + b"garbage\n")
    run(["audit", "show", str(log)])
    assert "1 lines are not records; 'audit verify' names them" in capsys.readouterr().err


def test_a_checkpoint_made_on_the_command_line_finds_a_cut_tail(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["audit", "key", str(tmp_path / "key"), "--name", "me"])
    public = capsys.readouterr().out.strip()
    run(["audit", "checkpoint", str(log), "--sign", str(tmp_path / "key"), "--to", str(tmp_path / "notes")])
    check = ["audit", "verify", str(log), "--checkpoint", str(tmp_path / "notes"), "--key", public]
    whole = run(check)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    assert whole == 0
    assert run(check) == 1
    assert f"{log}:2:0: the log ends after 2 records; a checkpoint has 3" in capsys.readouterr().err


def test_no_checkpoint_is_made_of_a_log_that_does_not_verify(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "checkpoint", str(edited)])
    assert code == 1
    assert "\n\n" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--policy", "strict"], ["old"]),
        (["--tenant", "acme"], ["new"]),
        (["--since", "2026-02-01"], ["new"]),
        (["--until", "2026-02-01"], ["old"]),
        (["--since", "1m"], []),
    ],
)
def test_show_filters_by_policy_tenant_and_time(
    filters: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = JsonlSink(tmp_path / "log")
    old, new = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    sink.write(build("request.started", at=old, request="old", policy={"name": "strict", "revision": "2"}))
    sink.write(build("request.started", at=new, request="new", policy={"name": "default"}, tenant="acme"))
    run(["audit", "show", str(tmp_path / "log"), "--json", *filters])
    assert [generation["request"] for generation in json.loads(capsys.readouterr().out)["generations"]] == expected


def test_show_follows_a_log(log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sink, turns = JsonlSink(log), iter(range(2))

    def sleep(_: float) -> None:
        sink.write(build("query", request="r3", image=0, step=3))
        sink.write(build("query", request="r4", image=0, step=3))
        if next(turns):
            raise KeyboardInterrupt

    monkeypatch.setattr("dnp_guard.cli.audit.sleep", sleep)
    run(["audit", "show", str(log), "--follow", "--request", "r3"])
    assert [row.split("  ")[1] for row in capsys.readouterr().out.splitlines()] == ["r3 image 0 3"]


@pytest.mark.parametrize("name", ["r.html", "r.md"])
def test_a_report_is_written(name: str, log: Path, tmp_path: Path) -> None:
    code = run(["audit", "report", str(log), "--out", str(tmp_path / name), "--verify"])
    page = (tmp_path / name).read_text(encoding="utf-8")
    assert code == 0
    assert page.startswith("<!doctype html>") == (name == "r.html")
    assert "The chain of the log is unbroken" in page


def test_the_report_has_the_kept_pictures_when_asked(log: Path, tmp_path: Path) -> None:
    sink = JsonlSink(log)
    finding = {"category": "nudity", "term": "t", "probability": 0.9, "threshold": 0.5}
    preview = previews.keep(previews.folder(log), "9" * 32, 0, 3, Image.new("RGB", (64, 64), "red"))
    sink.write(build("query", request="9" * 32, image=0, step=3, findings=[finding], preview=preview))
    sink.write(build("request.finished", request="9" * 32, image=0, decision="blocked"))
    pages = []
    for more in ([], ["--pictures"]):
        run(["audit", "report", str(log), "--out", str(tmp_path / "r.html"), *more])
        pages.append((tmp_path / "r.html").read_text(encoding="utf-8").count("data:image/jpeg"))
    assert pages == [0, 1]


def test_a_picture_of_another_name_is_not_put_into_the_report(log: Path, tmp_path: Path) -> None:
    previews.folder(log).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    sink = JsonlSink(log)
    finding = {"category": "nudity", "term": "t", "probability": 0.9, "threshold": 0.5}
    forged = {"file": "../secret.png", "sha256": "0" * 64}
    sink.write(build("query", request="r9", image=0, step=3, findings=[finding], preview=forged))
    sink.write(build("request.finished", request="r9", image=0, decision="blocked"))
    run(["audit", "report", str(log), "--out", str(tmp_path / "r.html"), "--pictures"])
    assert "data:image/jpeg" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_kept_file_that_is_no_picture_is_named(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonlSink(log)
    finding = {"category": "nudity", "term": "t", "probability": 0.9, "threshold": 0.5}
    preview = previews.keep(previews.folder(log), "9" * 32, 0, 3, Image.new("RGB", (64, 64), "red"))
    sink.write(build("query", request="9" * 32, image=0, step=3, findings=[finding], preview=preview))
    sink.write(build("request.finished", request="9" * 32, image=0, decision="blocked"))
    (previews.folder(log) / preview["file"]).write_text("no picture")
    assert run(["audit", "report", str(log), "--out", str(tmp_path / "r.html"), "--pictures"]) == 2
    assert f"{preview['file']}: the picture cannot be read" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize("more", [[], ["--json", "--out", "r.html"], ["--json", "--format", "html"]])
def test_a_report_without_a_page_has_no_pictures(more: list[str], log: Path) -> None:
    assert run(["audit", "report", str(log), "--pictures", *more]) == 2


def test_a_report_is_one_json_document(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "report", str(log), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert document["images"] == 2
    assert document["decisions"] == {"clean": 1, "steered": 1}


def test_an_export_is_csv_by_default(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "export", str(log)])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_an_export_to_parquet_needs_a_file(log: Path) -> None:
    assert run(["audit", "export", str(log), "--format", "parquet"]) == 2


def test_the_schema_of_a_record_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "schema"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["title"] == "dnp_guard audit record, format 1"
