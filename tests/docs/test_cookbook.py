"""Every policy of the documentation's cookbook is valid, and passes the policy tests that the page shows below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dnp_guard import cli

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cookbook.md"
FILES = dict(
    re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL),
)
POLICIES = [name for name in FILES if not name.startswith("tests/")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write all files that the page shows into a folder, and the policy pack that one of them extends."""
    made = tmp_path_factory.mktemp("cookbook")
    (made / "tests").mkdir()
    for name, text in FILES.items():
        (made / name).write_text(text, encoding="utf-8")
    assert cli.run(["policy", "init", str(made / "art-nudity.yaml"), "--from", "packs/art-nudity"]) == 0
    return made


def test_there_are_ten_policies():
    assert len(POLICIES) == 10


def test_every_block_of_the_page_is_a_file():
    assert len(FILES) == PAGE.read_text(encoding="utf-8").count("```yaml\n")


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_checks_without_a_warning(folder, name, capsys):
    assert cli.run(["policy", "check", str(folder / name)]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_passes_the_tests_below_it(folder, name, capsys):
    assert cli.run(["policy", "test", str(folder / "tests" / name.replace(".yaml", ".test.yaml"))]) == 0
    assert " 0 failed" in capsys.readouterr().out
