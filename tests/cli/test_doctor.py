from __future__ import annotations

import json
from email.message import Message
from importlib import metadata

import numpy as np
import pytest
from safetensors.numpy import save_file

from dnp_guard import cli
from dnp_guard.cli import checks


def declare(monkeypatch, **fields):
    message = Message()
    for name, values in fields.items():
        for value in values:
            message[name.replace("_", "-")] = value
    monkeypatch.setattr(metadata, "metadata", lambda _: message)


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run(["doctor", "--json", *args])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_the_document_has_one_entry_a_check(run):
    code, document = run()
    assert set(document) == {"ok", "checks", "errors"}
    assert code == (0 if document["ok"] else 1)
    assert {"python", "torch", "plugins", "tracing"} <= {check["name"] for check in document["checks"]}


def test_a_failed_check_says_what_and_the_remedy_and_exits_1(run, tmp_path):
    code, document = run("--audit", str(tmp_path / "absent" / "audit.jsonl"))
    (error,) = [error for error in document["errors"] if error["code"] == "audit-folder"]
    assert code == 1
    assert error["file"].endswith("audit.jsonl")
    assert error["message"] == "the folder does not exist"
    assert error["hint"].startswith("mkdir -p ")


def test_asking_after_an_audit_log_does_not_create_it(run, tmp_path):
    run("--audit", str(tmp_path / "audit.jsonl"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_audit_log(tmp_path):
    assert checks.audit(tmp_path).status == "failed"


def test_a_package_that_is_too_old_is_named_with_its_range(monkeypatch):
    declare(monkeypatch, Requires_Dist=["pluggy>=999"])
    (check,) = checks.packages()
    assert check.status == "failed"
    assert check.found == f"pluggy {metadata.version('pluggy')} is outside >=999"
    assert check.problems[0].hint == "pip install 'pluggy>=999'"


def test_a_package_that_is_missing_is_named(monkeypatch):
    declare(monkeypatch, Requires_Dist=["dnp-guard-no-such-package>=1"])
    (check,) = checks.packages()
    assert check.problems[0].code == "package-missing"


def test_a_package_of_an_extra_is_not_asked_for(monkeypatch):
    declare(monkeypatch, Requires_Dist=['dnp-guard-no-such-package>=1; extra == "otel"'])
    assert list(checks.packages()) == []


def test_a_package_of_an_installed_extra_is_held_to_its_range(monkeypatch):
    declare(monkeypatch, Requires_Dist=['torch>=999; extra == "local"'])
    (check,) = checks.packages()
    assert check.problems[0].code == "package-version"


def test_an_extra_that_holds_another_is_no_package(monkeypatch):
    declare(monkeypatch, Requires_Dist=['dnp-guard[local]; extra == "lab"'])
    assert list(checks.packages()) == []


def test_an_extra_that_is_not_installed_is_worth_a_note(monkeypatch):
    monkeypatch.setattr("dnp_guard.extras.find_spec", lambda name: None if name == "redis" else name)
    check = checks.extras()
    assert check.status == "note"
    assert check.problems == ()
    assert check.found.endswith("; not redis: pip install 'dnp-guard[NAME]'")


def test_without_torch_nothing_is_asked_of_it(monkeypatch, run):
    declare(monkeypatch, Requires_Dist=["pluggy"])
    monkeypatch.setattr("dnp_guard.extras.find_spec", lambda name: None)
    _, document = run()
    names = {check["name"] for check in document["checks"]}
    assert names.isdisjoint({"torch", "diffusers loads", "transformers loads", "embedded vision-language model"})


def test_a_pipeline_is_not_looked_at_without_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("dnp_guard.extras.find_spec", lambda name: None)
    (problem,) = checks.model(tmp_path).problems
    assert problem.code == "missing-extra"
    assert problem.hint == "pip install 'dnp-guard[diffusers]'"


def test_a_python_outside_the_range_fails(monkeypatch):
    declare(monkeypatch, Requires_Python=[">=99"])
    assert checks.python().problems[0].code == "python-version"


def test_missing_weights_are_named_by_their_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("dnp_guard.glyphs.VLM", tmp_path)
    *_, check = checks.weights()
    assert check.problems[0].code == "weights-missing"
    assert check.problems[0].file == str(tmp_path)


def test_damaged_weights_are_named_by_their_file(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    monkeypatch.setattr("dnp_guard.glyphs.VLM", tmp_path)
    *_, check = checks.weights()
    assert check.problems[0].code == "weights-unreadable"
    assert check.problems[0].file == str(tmp_path / "model.safetensors")


def test_an_unknown_backend_is_answered_with_those_there_are():
    check = checks.vlm("no-such-kind:x")
    assert check.status == "failed"
    assert "glyphs" in check.problems[0].hint


def test_a_backend_that_cannot_be_built_says_why(tmp_path):
    check = checks.vlm(f"transformers:{tmp_path / 'absent'}")
    assert check.problems[0].code == "vlm-unavailable"
    assert "absent" in check.found


@pytest.mark.parametrize(
    ("key", "measured", "expected"),
    [
        ("a.transformer_blocks.0.attn2.to_k.weight", True, "is attention"),
        ("a.transformer_blocks.0.attn2.to_k.weight", False, "is separate: x.attention.json does not lie beside it"),
        ("double_blocks.0.img_attn.qkv.weight", True, "is separate: no layer attn2 reads its prompt"),
    ],
)
def test_a_checkpoint_is_said_to_be_steered_by_attention_where_that_was_shown(tmp_path, key, measured, expected):
    file = tmp_path / "x.safetensors"
    save_file({key: np.zeros(1, np.float32)}, file)
    if measured:
        (tmp_path / "x.attention.json").write_text("{}")
    assert checks.checkpoint(file).found.endswith(expected)


def test_a_file_that_is_no_checkpoint_is_a_problem(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_text("none")
    (problem,) = checks.checkpoint(file).problems
    assert problem.code == "weights-unreadable"
