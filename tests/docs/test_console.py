"""The commands of a how-to page are run from its first to its last, and print what the page says they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest

from dnp_guard import cli
from dnp_guard.policy import parse_policy
from dnp_guard.policy.read.scan import scan
from dnp_guard.policy.read.testfile import TestFile
from dnp_guard.policy.read.validate import read_as

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
POLICY_PAGES = ["calibrate.md", "looks.md", "policy.md"]
"""The pages that show parts of policies; other YAML is on others."""
YAML_BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?```console\n(.*?)```", re.DOTALL)


def commands(page):
    """Yield every command of a page with the lines that it prints; leave out blocks that say why they are not run."""
    for excused, block in BLOCK.findall(page):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:] if not excused else ():
            command, *printed = step.splitlines()
            yield command, printed


def shows(output, printed):
    """Return whether lines are printed in this order; `…` stands for the rest of a line, or for any lines."""
    text = " ".join(output.split())
    parts = [" ".join(part.split()) for line in printed for part in line.split("…")]
    at = 0
    for part in filter(None, parts):
        place = text.find(part, at)
        if place < 0:
            return False
        at = place + len(part)
    return True


@pytest.mark.models
@pytest.mark.parametrize(("page", "least"), [("docs/how-to/policy.md", 20), ("examples/store/README.md", 5)])
def test_the_commands_of_a_page_print_what_it_says(page, least, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ran = 0
    for command, printed in commands((ROOT / page).read_text(encoding="utf-8")):
        if command.startswith("dnp-guard "):
            cli.run(shlex.split(command)[1:])
            captured = capsys.readouterr()
            output = captured.out + captured.err
        else:
            output = subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout
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
        assert parse_policy(f"format: 1\nname: p\n{whole}".encode(), page).categories


def test_what_a_command_does_not_print_is_noticed():
    assert not shows("one\ntwo\n", ["two", "one"])
    assert shows("one  two three\nfour", ["one two …", "four"])
