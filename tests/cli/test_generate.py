from __future__ import annotations

from dnp_guard.cli import run


def test_a_model_that_is_nowhere_is_answered_with_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "--model", "nobody/nothing", "--prompt", "a lake"]) == 2
    said = capsys.readouterr().err
    assert "nobody/nothing: neither a folder here nor in the Hugging Face cache" in said
    assert "hf download nobody/nothing" in said
    assert list(tmp_path.iterdir()) == []
