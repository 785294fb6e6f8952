"""The guard reads the same settings for every serving engine: from a file, from environment variables, or from both."""

import os

import pytest

from dnp_guard import DnpGuardError
from dnp_guard.hosts.engines.settings import opened, read, state_of

FILE = "DNP_GUARD_ENGINE_CONFIG"


def test_variables_come_before_the_file(tmp_path):
    file = tmp_path / "engine.yaml"
    file.write_text("policy: strict\nvlm: glyphs\naudit: [a.jsonl, 'stdout:']\n")
    settings = read({FILE: str(file), "DNP_GUARD_ENGINE_POLICY": "default"})
    assert settings.policy == "default"
    assert settings.vlm == "glyphs"
    assert settings.audit == ("a.jsonl", "stdout:")


def test_variables_alone_suffice():
    settings = read({"DNP_GUARD_ENGINE_VLM": "glyphs", "DNP_GUARD_ENGINE_AUDIT": "audit.jsonl"})
    assert settings.vlm == "glyphs"
    assert settings.audit == ("audit.jsonl",)
    assert settings.on_failure == "closed"


def test_a_variable_lists_policies_that_a_request_may_name_as_path_lists_folders():
    listed = os.pathsep.join(["strict", "/etc/dnp-guard/kids.yaml"])
    settings = read({"DNP_GUARD_ENGINE_VLM": "glyphs", "DNP_GUARD_ENGINE_STRICTER": listed})
    assert settings.stricter == ("strict", "/etc/dnp-guard/kids.yaml")


def test_one_policy_in_the_file_needs_no_list(tmp_path):
    file = tmp_path / "engine.yaml"
    file.write_text("vlm: glyphs\nstricter: strict\n")
    assert read({FILE: str(file)}).stricter == ("strict",)


def test_a_list_in_another_form_is_told_its_right_form(tmp_path):
    file = tmp_path / "engine.yaml"
    file.write_text("vlm: glyphs\nstricter: {kids: kids.yaml}\n")
    with pytest.raises(DnpGuardError, match=r"Write a list, such as `stricter: \[kids.yaml\]`"):
        read({FILE: str(file)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("polcy: default\nvlm: glyphs\n", "polcy"),
        ("policy: default\n", "vlm"),
        ("vlm: glyphs\non_failure: opne\n", "on_failure"),
        ("- a\n", "holds no settings"),
        ("vlm: [\n", "cannot be read"),
    ],
)
def test_invalid_settings_are_named(tmp_path, text, expected):
    file = tmp_path / "engine.yaml"
    file.write_text(text)
    with pytest.raises(DnpGuardError, match=expected):
        read({FILE: str(file)})


def test_a_misspelt_setting_is_told_its_right_name(tmp_path):
    file = tmp_path / "engine.yaml"
    file.write_text("polcy: default\nvlm: glyphs\n")
    with pytest.raises(DnpGuardError, match="Did you mean `policy`"):
        read({FILE: str(file)})


def test_settings_that_do_not_check_open_nothing():
    assert not opened({"DNP_GUARD_ENGINE_ON_FAILURE": "open"})  # without a backend


def test_the_state_is_found_where_the_rest_does_not_check(tmp_path):
    assert state_of({"DNP_GUARD_ENGINE_STATE": str(tmp_path)}) == tmp_path
