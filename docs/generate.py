"""Write the reference pages that the code itself knows best: ``python -m docs.generate``."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pluggy
import typer
from prometheus_client import CollectorRegistry
from typer.cli import get_docs_for_click

from dnp_guard import hookspecs
from dnp_guard.audit import schema as audit_schema
from dnp_guard.cli import build
from dnp_guard.telemetry import Metrics
from docs.ablations import ablations
from docs.diagrams import diagrams
from docs.figures import filled
from docs.pipelines import pipelines
from docs.policy_keys import policy
from docs.results import pictures, results

REFERENCE = Path(__file__).parent / "reference"
AUDIT_SCHEMA = Path(audit_schema.__file__).parent / "audit.v1.json"

_HOOKS = """\
# Hooks

A plugin implements any of these functions, marked with `dnp_guard.hookimpl`, in a module or a class. It is loaded only
when a guard is told so: `Guard(…, plugins=["name"])` for an entry point of the group `dnp_guard`, or
`Guard(…, plugins=[object])`. A plugin may make a decision stricter, never looser; an implementation that raises is
counted in `dnp_guard_degraded_total{reason="plugin_error"}` and skipped.
"""

_AUDIT = """\
# Audit records

Format 1: one JSON object a line, the line being exactly its RFC 8785 bytes. Absent fields are left out. Numbers that
JSON cannot hold are the strings `NaN`, `Infinity` and `-Infinity`; integers beyond ±(2⁵³−1) are strings of digits. The
JSON Schema is `dnp_guard/audit/audit.v1.json`, which `dnp-guard audit schema` prints.

## Events

Every record has `v`, `seq`, `time`, `event`, `prev` and `hash`.

| event | what happened | it has at least |
|---|---|---|
{events}

## Fields

| field | kind | what it says |
|---|---|---|
{fields}

## Tombstones

In the place of purged records stands `{{"v", "time", "tombstone": {{first, last, prev, head}}, "hash"}}`: the places of
the first and the last of them, the hash before and the hash of the last. A later `purged` record names it in
`purged`.
"""

_FEW = 8

_METRICS = """\
# Metrics

Prometheus metrics, registered in the `registry` that a guard is given, and in a private one otherwise. No label ever
holds a prompt, free text or a path. With `dnp-guard serve --metrics-tenants N`, those that have a `policy`, and
`dnp_guard_policy_info`, have a `tenant` too: its name for the first N tenants, `other` for the rest.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def hooks() -> str:
    """Return the page of the hooks: every one with its exact arguments."""
    return "\n".join([_HOOKS, *(_hook(name) for name in hook_names())])


def hook_names() -> list[str]:
    """Return the names of all hooks, in the order of the module."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    return [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name) is not None]


def signature(name: str) -> str:
    """Return a hook's name, arguments and result, as a plugin author writes them."""
    return f"{name}{inspect.signature(getattr(hookspecs, name))}".replace("'", "")


def _hook(name: str) -> str:
    specification = getattr(hookspecs, name)
    options = pluggy.PluginManager(hookspecs.PROJECT).parse_hookspec_opts(hookspecs, name) or {}
    body = textwrap.indent(inspect.getdoc(specification) or "", "   ")
    answer = "The first result that is not None is the answer." if options.get("firstresult") else "All are called."
    return (
        f"## `{name}`\n\n{answer}\n\n"
        f"```{{eval-rst}}\n.. py:function:: {signature(name)}\n   :no-index:\n\n{body}\n```\n"
    )


def cli() -> str:
    """Return the page of the command line: every command with its options."""
    command = typer.main.get_command(build())
    page = get_docs_for_click(
        obj=command, ctx=typer.Context(command, info_name="dnp-guard"), name="dnp-guard", title="Command line"
    )
    page = re.sub(r"^\* `--(install|show)-completion`.*\n", "", page, flags=re.MULTILINE)
    exits = (
        "Exit codes: 0 done; 1 the answer is no; 2 usage or unreadable input. Errors are one or two lines on stderr."
    )
    return page.replace("\n\n**Usage**", f"\n\n{exits}\n\n**Usage**", 1).rstrip() + "\n"


def metrics() -> str:
    """Return the page of the metrics: every one with its labels."""
    rows = [f"| `{name}` | {kind} | {labels} | {what} |" for name, kind, labels, what in metric_rows()]
    return _METRICS + "\n".join(rows) + "\n"


def metric_rows() -> list[tuple[str, str, str, str]]:
    """Return name, kind, labels and help of every metric."""
    registry = CollectorRegistry()
    Metrics(registry)
    rows = []
    for collector in dict.fromkeys(registry._collector_to_names):  # noqa: SLF001 (its public face hides unused labels)
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)  # noqa: SLF001 (as above)
        rows.append((name, family.type, labels, family.documentation))
    return sorted(rows)


def audit() -> str:
    """Return the page of the audit records: every event and every field."""
    events = [
        f"| `{event}` | {meaning} | {', '.join(f'`{name}`' for name in required)} |"
        for event, (meaning, required) in audit_schema.EVENTS.items()
    ]
    fields = [
        f"| `{name}{_parts(shape)}` | {_kind(shape)} | {meaning} |"
        for name, (shape, meaning) in audit_schema.FIELDS.items()
    ]
    return _AUDIT.format(events="\n".join(events), fields="\n".join(fields))


def _parts(shape: dict[str, Any]) -> str:
    inner = shape.get("items", shape).get("properties", {})
    return f"{'[]' if 'items' in shape else ''}{{{', '.join(inner)}}}" if inner else ""


def _kind(shape: dict[str, Any]) -> str:
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"]) if len(shape["enum"]) < _FEW else "one of a list"
    if "anyOf" in shape:
        return _kind(shape["anyOf"][0])
    return f"`{shape['const']}`" if "const" in shape else str(shape["type"])


PAGES = {
    "audit.md": audit,
    "hooks.md": hooks,
    "cli.md": cli,
    "metrics.md": metrics,
    "pipelines.md": pipelines,
    "policy.md": policy,
    "../../README.md": partial(filled, "README.md"),
    "../explanation/ablations.md": ablations,
    "../explanation/comparison.md": partial(filled, "docs/explanation/comparison.md"),
    "../explanation/results.md": results,
}


def main() -> None:
    """Write every page."""
    AUDIT_SCHEMA.write_text(json.dumps(audit_schema.schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, page in PAGES.items():
        path = REFERENCE / name
        path.write_text(page(), encoding="utf-8")
        print(path.resolve().relative_to(REFERENCE.parents[1]))
    for path, svg in (pictures() | diagrams()).items():
        path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
