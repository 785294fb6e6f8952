from __future__ import annotations

import json
from pathlib import Path

import pytest

from dnp_guard.cli import run

INTEGRATIONS = Path(__file__).parents[2] / "integrations"


@pytest.fixture
def host(tmp_path):
    (tmp_path / "webui" / "extensions" / "somebody-elses").mkdir(parents=True)
    return tmp_path / "webui"


def folder_of(host):
    return host / "extensions" / "dnp-guard"


def tree(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_installed_is_the_integration_and_checks(host):
    assert run(["install", "a1111", str(host)]) == 0
    installed = tree(folder_of(host))
    for name, content in tree(INTEGRATIONS / "a1111").items():
        if "__pycache__" not in name:
            assert installed[name] == content
    assert run(["install", "a1111", str(host), "--check"]) == 0


def test_uninstalling_leaves_the_host_as_it_was(host):
    (host / "config.json").write_text('{\n    "samples_save": true\n}', encoding="utf-8")
    before = tree(host)
    run(["install", "a1111", str(host)])
    cache = folder_of(host) / "scripts" / "__pycache__"
    cache.mkdir()
    (cache / "dnp_guard.cpython-310.pyc").write_bytes(b"")
    (host / "config.json").write_text('{\n    "samples_save": true,\n    "dnp_guard_url": "x"\n}', encoding="utf-8")

    assert run(["uninstall", "a1111", str(host)]) == 0

    assert tree(host) == before
    assert not folder_of(host).exists()


def test_a_folder_that_someone_else_made_is_not_touched(host, capsys):
    folder_of(host).mkdir()
    (folder_of(host) / "mine.txt").write_text("mine", encoding="utf-8")
    assert run(["install", "a1111", str(host)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert tree(folder_of(host)) == {"mine.txt": b"mine"}


def test_a_changed_file_is_found_and_not_overwritten(host, capsys):
    run(["install", "a1111", str(host)])
    changed = folder_of(host) / "scripts" / "dnp_guard.py"
    changed.write_text("# mine\n", encoding="utf-8")
    capsys.readouterr()

    assert run(["install", "a1111", str(host), "--check", "--json"]) == 1
    assert [error["code"] for error in json.loads(capsys.readouterr().out)["errors"]] == ["changed"]
    assert run(["install", "a1111", str(host)]) == 2
    assert changed.read_text(encoding="utf-8") == "# mine\n"


def test_a_missing_file_is_found_and_put_back(host, capsys):
    run(["install", "a1111", str(host)])
    (folder_of(host) / "scripts" / "dnp_guard.py").unlink()
    assert run(["install", "a1111", str(host), "--check"]) == 1
    assert run(["install", "a1111", str(host)]) == 0
    assert run(["install", "a1111", str(host), "--check"]) == 0


def test_an_update_takes_away_what_the_integration_no_longer_has(host):
    run(["install", "a1111", str(host)])
    manifest = folder_of(host) / ".dnp-guard-installed.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    (folder_of(host) / "old.py").write_text("", encoding="utf-8")
    document["files"]["old.py"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    manifest.write_text(json.dumps(document), encoding="utf-8")

    assert run(["install", "a1111", str(host), "--check"]) == 1
    assert run(["install", "a1111", str(host)]) == 0
    assert not (folder_of(host) / "old.py").exists()


def test_the_configuration_is_written_and_an_update_keeps_it(host):
    run(
        [
            "install",
            "a1111",
            str(host),
            "--url",
            "http://127.0.0.1:9000",
            "--on-failure",
            "open",
            "--start-vlm",
            "glyphs",
        ]
    )
    run(["install", "a1111", str(host)])

    written = json.loads((folder_of(host) / "dnp_guard.json").read_text(encoding="utf-8"))
    assert written["url"] == "http://127.0.0.1:9000"
    assert written["on_failure"] == "open"
    assert written["start"][1:] == [
        *("-m", "dnp_guard", "serve", "--policy", "default", "--vlm", "glyphs", "--port", "9000"),
    ]


@pytest.fixture
def comfyui(tmp_path):
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    return tmp_path / "ComfyUI"


def settings_of(comfyui):
    return json.loads((comfyui / "custom_nodes" / "dnp-guard" / "dnp_guard.json").read_text(encoding="utf-8"))


def test_settings_that_an_update_does_not_name_stay(comfyui):
    run(["install", "comfyui", str(comfyui), "--enforce", "server", "--policy", "strict"])
    run(["install", "comfyui", str(comfyui), "--on-failure", "closed"])
    assert settings_of(comfyui) == {"enforce": "server", "policy": "strict", "on_failure": "closed"}


def test_what_was_unlocked_can_be_locked_again(comfyui):
    run(["install", "comfyui", str(comfyui), "--unlocked"])
    run(["install", "comfyui", str(comfyui), "--locked"])
    assert settings_of(comfyui) == {"locked": True}


def test_settings_that_cannot_be_read_are_not_overwritten(comfyui, capsys):
    run(["install", "comfyui", str(comfyui)])
    file = comfyui / "custom_nodes" / "dnp-guard" / "dnp_guard.json"
    file.write_text("{enforce", encoding="utf-8")
    assert run(["install", "comfyui", str(comfyui), "--on-failure", "closed"]) == 2
    assert "dnp_guard.json cannot be read" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "{enforce"


def test_enforcing_is_refused_for_a_host_without_workflows(host, capsys):
    assert run(["install", "a1111", str(host), "--enforce", "server"]) == 2
    assert "only ComfyUI has workflows" in capsys.readouterr().err


def test_a_token_that_is_not_there_does_not_check(host, tmp_path, capsys):
    run(["install", "a1111", str(host), "--token-file", str(tmp_path / "token")])
    assert run(["install", "a1111", str(host), "--check"]) == 1
    assert "token" in capsys.readouterr().err


def test_files_that_someone_put_into_the_folder_stay_and_are_named(host, capsys):
    run(["install", "a1111", str(host)])
    (folder_of(host) / "notes.txt").write_text("mine", encoding="utf-8")
    assert run(["uninstall", "a1111", str(host)]) == 0
    assert "notes.txt" in capsys.readouterr().out
    assert tree(folder_of(host)) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_folder_that_is_no_host_is_refused(command, tmp_path, capsys):
    assert run([command, "a1111", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "has no folder named 'extensions', so a1111 is not installed there" in message
    assert "which contains 'extensions'" in message


def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path, capsys):
    assert run(["install", "a1111", str(tmp_path / "missing")]) == 2
    assert "missing is not a folder" in capsys.readouterr().err


def test_a_manifest_that_names_files_elsewhere_removes_nothing(host, capsys):
    run(["install", "a1111", str(host)])
    (host / "precious").write_text("", encoding="utf-8")
    manifest = folder_of(host) / ".dnp-guard-installed.json"
    manifest.write_text(json.dumps({"files": {"../../precious": ""}}), encoding="utf-8")
    assert run(["uninstall", "a1111", str(host)]) == 2
    assert (host / "precious").exists()
