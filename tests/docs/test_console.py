"""The commands of a documentation page run in order and print the output on the page; its YAML blocks are valid."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from shutil import which

import pytest
from ruamel.yaml import YAML

from dnp_guard.hosts.engines.settings import EngineSettings
from dnp_guard.lab.unlearn import UnlearnConfig
from dnp_guard.policy import parse_policy
from dnp_guard.policy.read.scan import scan
from dnp_guard.policy.read.testfile import TestFile
from dnp_guard.policy.read.validate import read_as
from tests.docs.shell import commands, output_of, shows

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
POLICY_PAGES = ["backend.md", "calibrate.md", "edits.md", "policy.md", "queries.md", "steering.md"]
"""Pages that show policies or parts of them."""
OTHER_YAML = {"cookbook.md", "engines.md", "evaluate.md"}
"""Pages whose YAML other tests read."""
YAML_BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


@pytest.mark.models
@pytest.mark.parametrize(
    ("page", "least"),
    [
        pytest.param("docs/how-to/deploy.md", 4, marks=pytest.mark.skipif(not which("openssl"), reason="no openssl")),
        ("docs/how-to/policy.md", 20),
        ("examples/store/README.md", 5),
    ],
)
def test_the_commands_of_a_page_print_what_it_says(page, least, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ran = 0
    for command, printed in commands((ROOT / page).read_text(encoding="utf-8")):
        output = output_of(command, capsys)
        assert shows(output, printed), f"$ {command}\n{output}"
        ran += 1
    assert ran > least


@pytest.mark.parametrize("page", POLICY_PAGES)
def test_what_a_page_says_to_write_in_a_policy_is_right_where_the_page_puts_it(page):
    for text in YAML_BLOCK.findall((HOW_TO / page).read_text(encoding="utf-8")):
        part = textwrap.dedent(text)
        if part.startswith("- name:"):
            tests = read_as(TestFile, scan(f"format: 1\npolicy: ../p.yaml\ncases:\n{text}".encode(), page))
            assert tests.cases
            continue
        if part.startswith("threshold:"):
            part = f"categories:\n  - id: star\n    negative: [star]\n{text}"
        part = part.replace("    calibration: calibration.json\n", "")  # a file of yours
        whole = part if "categories:" in part else f"{part}categories: [{{id: star, negative: [star]}}]\n"
        whole = whole if whole.startswith("format:") else f"format: 1\nname: p\n{whole}"
        assert parse_policy(whole.encode(), page).categories


def test_the_yaml_of_every_page_is_read_by_a_test():
    pages = {page.name for page in HOW_TO.glob("*.md") if "```yaml\n" in page.read_text(encoding="utf-8")}
    assert pages == {*POLICY_PAGES} | OTHER_YAML


def test_the_settings_of_the_page_on_engines_can_be_used():
    (text,) = YAML_BLOCK.findall((HOW_TO / "engines.md").read_text(encoding="utf-8"))
    settings = EngineSettings.model_validate(YAML(typ="safe").load(text))
    assert settings.policy == "/etc/dnp-guard/policy.yaml"


def test_the_technique_of_the_page_on_evaluations_takes_the_keys_that_it_shows():
    (text,) = YAML_BLOCK.findall((HOW_TO / "evaluate.md").read_text(encoding="utf-8"))
    assert UnlearnConfig(**YAML(typ="safe").load(text)["technique"]["config"]).policy == "paper-nudity"


def test_what_a_command_does_not_print_is_noticed():
    assert not shows("one\ntwo\n", ["two", "one"])
    assert shows("one  two three\nfour", ["one two …", "four"])
