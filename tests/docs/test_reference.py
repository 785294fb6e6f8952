from __future__ import annotations

import pytest
import typer

from dnp_guard.cli import build
from docs.generate import PAGES, REFERENCE, hook_names, metric_rows, signature


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name):
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), "run: make docs"


@pytest.mark.parametrize("name", hook_names())
def test_a_hook_is_documented_with_its_exact_arguments(name):
    assert f"py:function:: {signature(name)}\n" in (REFERENCE / "hooks.md").read_text(encoding="utf-8")


def commands(command, path=("dnp-guard",)):
    for name, child in getattr(command, "commands", {}).items():
        yield " ".join((*path, name))
        yield from commands(child, (*path, name))


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(build()))))
def test_a_command_is_documented(command):
    assert f"# `{command}`\n" in (REFERENCE / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "labels"), [(name, labels) for name, _, labels, _ in metric_rows()])
def test_a_metric_is_documented_with_its_labels(name, labels):
    rows = (REFERENCE / "metrics.md").read_text(encoding="utf-8").splitlines()
    assert any(row.startswith(f"| `{name}` |") and f"| {labels} |" in row for row in rows)
