from __future__ import annotations

import json

import pytest

from dnp_guard.cli import run


def test_a_model_that_is_nowhere_is_answered_with_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "--model", "nobody/nothing", "--prompt", "a lake"]) == 2
    message = capsys.readouterr().err
    assert "nobody/nothing: neither a folder here nor in the Hugging Face cache" in message
    assert "hf download nobody/nothing" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.models
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (["--vlm", "blind"], []),
        (["--vlm", "blind", "--second-opinion", "seeing"], ["star"]),
        (["--vlm", "blind", "--final-vlm", "seeing"], ["star"]),
        (["--vlm", "seeing", "--final-vlm", "blind"], []),
    ],
)
def test_the_options_say_who_judges_the_finished_image(options, seen, tmp_path, capsys):
    (tmp_path / "blind").write_text("star: 0.0")
    (tmp_path / "seeing").write_text("star: 0.9")
    named = [option if option.startswith("--") else f"scripted:{tmp_path / option}" for option in options]
    drawing = ["--prompt", "a lake", "--steps", "4", "--out", str(tmp_path / "out")]
    assert run(["generate", *drawing, *named, "--json"]) == 0
    capsys.readouterr()
    records = [json.loads(line) for line in (tmp_path / "out" / "audit.jsonl").read_text().splitlines()]
    (final,) = (record for record in records if record["event"] == "query" and record.get("step") is None)
    assert [finding["category"] for finding in final.get("findings", ())] == seen
