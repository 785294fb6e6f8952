"""``dnp-guard policy``: check policies, print their schema, and run the other commands about policies."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dnp_guard.cli.console import AsJson, print_json, print_problem
from dnp_guard.cli.policy_cases import cases
from dnp_guard.cli.policy_check import PolicyCheck
from dnp_guard.cli.policy_diff import diff
from dnp_guard.cli.policy_explain import explain, summary
from dnp_guard.cli.policy_promote import promote
from dnp_guard.cli.policy_sign import sign, verify
from dnp_guard.cli.policy_test import test
from dnp_guard.cli.policy_write import init, upgrade
from dnp_guard.policy import Policy, schema_of_tests
from dnp_guard.policy import schema as policy_schema
from dnp_guard.policy.force.store import merged
from dnp_guard.policy.read.loading import UNREADABLE

app = typer.Typer(help="Write, check, test, compare and roll out policies.", no_args_is_help=True)

app.command()(init)
app.command()(test)
app.command()(diff)
app.command()(explain)
app.command()(promote)
app.command()(cases)
app.command(name="migrate")(upgrade)
app.command()(sign)
app.command()(verify)


@app.command()
def check(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Policy files, or folders of policies.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Check policies, and report every problem with line and column. Exits 1 if a policy is invalid."""
    result = PolicyCheck()
    for path in paths:
        result.add(path)
    policies, problems, doubts = result.policies, result.problems, [*result.doubts, *result.same_revision()]
    if as_json:
        checked = [{"file": file, **summary(policy), "in_force": in_force(policy)} for file, policy in policies.items()]
        print_json(
            {
                "ok": not problems,
                "policies": checked,
                "warnings": [asdict(doubt) for doubt in doubts],
                "errors": [asdict(problem) for problem in problems],
            }
        )
    else:
        _print_checked(policies)
        for doubt in doubts:
            print_problem(replace(doubt, message=f"warning: {doubt.message}"))
        for problem in problems:
            print_problem(problem)
    if problems:
        raise typer.Exit(2 if any(problem.code == UNREADABLE for problem in problems) else 1)


@app.command()
def schema(*, tests: Annotated[bool, typer.Option("--tests", help="Print the schema of test files.")] = False) -> None:
    """Print the JSON Schema of policies, or of their tests, for editors."""
    print_json(schema_of_tests() if tests else policy_schema())


def in_force(policy: Policy) -> str:
    """Return the digest that records carry if only this policy is in force, with its current exceptions applied."""
    return merged((policy,), None, None, datetime.now(UTC)).policy.digest


def _print_checked(policies: dict[str, Policy]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for file, policy in policies.items():
        count = len(policy.categories)
        table.add_row(
            Text("ok", style="green"),
            Text(file),
            Text(f"{policy.name} {policy.revision}"),
            Text(f"{count} {'category' if count == 1 else 'categories'}"),
            Text(in_force(policy)[:12], style="dim"),
        )
    if policies:
        Console().print(table)
