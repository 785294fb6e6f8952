from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dnp_guard.errors import PolicyError
from dnp_guard.policy import Policy, load_policy, parse_policy, shipped
from dnp_guard.policy.model.keys import KEYS

KEY_NAMES = sorted({key for keys in KEYS.values() for key in keys})


@pytest.fixture
def unreadable():
    def unreadable(source):
        with pytest.raises(PolicyError) as caught:
            load_policy(source)
        (problem,) = caught.value.problems
        assert problem.file == str(source)
        assert problem.line == 0
        assert problem.code == "unreadable"
        return problem

    return unreadable


def test_a_path_is_loaded_as_text_or_path(tmp_path, minimal):
    path = tmp_path / "p.yaml"
    path.write_text(minimal)
    assert load_policy(str(path)) == load_policy(path)


def test_a_shipped_name_is_not_taken_over_by_a_file_of_the_working_folder(tmp_path, minimal, monkeypatch):
    (tmp_path / "glyphs").write_text(minimal)
    monkeypatch.chdir(tmp_path)
    assert load_policy("glyphs").name == "glyphs"


def test_problems_name_the_file_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text("format: 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError) as caught:
        load_policy("p.yaml")
    assert {problem.file for problem in caught.value.problems} == {"p.yaml"}


def test_a_name_that_is_not_shipped_is_answered_with_the_nearest(unreadable):
    assert "Did you mean `default`?" in unreadable("defalt").hint


def test_a_folder_is_not_a_policy(unreadable, tmp_path):
    assert "a folder" in unreadable(tmp_path).message


def test_a_device_is_not_read(unreadable):
    assert "not a plain file" in unreadable(os.devnull).message


def test_a_path_that_cannot_be_one_is_unreadable(unreadable):
    assert unreadable("a\0b").hint


def test_a_file_over_the_limit_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"# " + b"x" * 1_000_000)
    with pytest.raises(PolicyError, match="256 KiB"):
        load_policy(tmp_path / "p.yaml")


def test_the_shipped_policies_are_found_by_name():
    assert {"default", "glyphs"} <= set(shipped())


def test_loading_a_policy_imports_no_torch():
    code = "import sys; from dnp_guard.policy import load_policy; load_policy('default'); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def policy_or_problems(raw):
    try:
        return isinstance(parse_policy(raw, "p.yaml"), Policy)
    except PolicyError as error:
        return bool(error.problems) and all(problem.code and problem.message for problem in error.problems)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["steer", "block", "separate", "replace", "${found}", "$", "default", "9" * 5000, "1e999", "-.inf"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEY_NAMES) | st.text(max_size=8), inner)
    ),
    max_leaves=25,
)
PIECES = st.sampled_from(
    [
        *"[]{}:,-?&*!|>%@#'\"\n\t $<\\",
        "  ",
        "- ",
        ": ",
        "<<: ",
        "&a ",
        "*a",
        "!!str ",
        "---\n",
        "...\n",
        "\\u202e",
        "\r\n",
    ]
    + [f"{key}: " for key in KEY_NAMES]
)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_policy_or_its_problems(raw):
    assert policy_or_problems(raw)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(max_size=3), max_size=40).map("".join))
@example("\x85")
@example("a: '\n---\n")
@example("%YAML 1.2\n%YAML 1.2\n---\n")
@example("format: 1\nname: a\ncategories: [{id: a, threshold: " + "9" * 400 + "}]")
def test_any_yaml_like_text_gives_a_policy_or_its_problems(text):
    assert policy_or_problems(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(KEY_NAMES), VALUES), st.lists(VALUES, max_size=3))
def test_any_data_gives_a_policy_or_its_problems(data, categories):
    from ruamel.yaml import YAML
    from ruamel.yaml.compat import StringIO

    stream = StringIO()
    YAML(typ="safe", pure=True).dump({"format": 1, "name": "a", "categories": categories, **data}, stream)
    assert policy_or_problems(stream.getvalue().encode("utf-8", "surrogatepass"))
