"""``dnp-guard policy``: check policies, see what they ask and inject, print their schema; and its other commands."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dnp_guard.cli.console import AsJson, print_json, print_problem
from dnp_guard.cli.policy_diff import diff
from dnp_guard.cli.policy_sign import sign, verify
from dnp_guard.cli.policy_test import test
from dnp_guard.cli.policy_words import pace, strength
from dnp_guard.cli.policy_write import init, upgrade
from dnp_guard.errors import PolicyError, Problem, did_you_mean
from dnp_guard.generation.pacing import due_by_category
from dnp_guard.policy import (
    Category,
    Policy,
    allowed_questions,
    load_policy,
    questions,
    questions_per_look,
    schema_of_tests,
)
from dnp_guard.policy import schema as policy_schema
from dnp_guard.policy.force.store import exception_problems
from dnp_guard.policy.read.lint import warnings
from dnp_guard.policy.read.loading import UNREADABLE, load

app = typer.Typer(help="Write, check, test, compare and roll out policies.", no_args_is_help=True)

NOT_POLICIES = {"tests", "schema"}
"""Folders beside policies that hold other YAML."""

RUN_LENGTHS = (28, 50)
"""Usual numbers of sampler steps, to show which steps are looked at."""

ON_FAILURE = {
    "closed": "An image that no later look clears is withheld.",
    "open": "The image passes, and is counted.",
    "last": "The last decision stands; without one, the image is withheld.",
}

app.command()(init)
app.command()(test)
app.command()(diff)
app.command(name="migrate")(upgrade)
app.command()(sign)
app.command()(verify)


@app.command()
def check(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Policy files, or folders of them.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Check policies; every problem at its line and column. Exits 1 when one does not check."""
    policies: dict[str, Policy] = {}
    problems: list[Problem] = []
    doubts: list[Problem] = []
    for path in paths:
        files = _files(path)
        if not files:
            problems.append(Problem(path, 0, 0, UNREADABLE, "no policy in this folder.", "Policies end in .yaml."))
        for file in files:
            try:
                loaded = load(file)
                policies[file] = loaded.policy
                problems += exception_problems(loaded)
                doubts += warnings(loaded)
            except PolicyError as error:
                problems += error.problems
    if as_json:
        checked = [{"file": file, **_summary(policy)} for file, policy in policies.items()]
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
def schema(*, tests: Annotated[bool, typer.Option("--tests", help="Of files of tests.")] = False) -> None:
    """Print the JSON Schema of the policy language, or of its tests, for editors."""
    print_json(schema_of_tests() if tests else policy_schema())


@app.command()
def explain(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A policy file, or the name of a shipped policy.")],
    *,
    category: Annotated[str | None, typer.Option(help="Only this category.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a policy asks, when, what it may inject, and what happens on failure."""
    policy = load_policy(path)
    ids = [each.id for each in policy.categories]
    if category is not None and category not in ids:
        raise typer.BadParameter(f"{path} has no category '{category}'. {did_you_mean(category, ids)}")
    document = _explanation(policy, category)
    if as_json:
        print_json(document)
    else:
        _print_explanation(document)


def _files(path: str) -> list[str]:
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    return sorted(
        str(file)
        for file in folder.rglob("*.yaml")
        if not NOT_POLICIES.intersection(file.relative_to(folder).parts[:-1])
    )


def _summary(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "revision": policy.revision,
        "digest": policy.digest,
        "mode": policy.mode,
        "on_failure": policy.on_failure,
        "categories": len(policy.categories),
    }


def _explanation(policy: Policy, only: str | None) -> dict[str, Any]:
    queries = policy.queries
    steps = {
        str(total): sorted({step for due in due_by_category(policy, total).values() for step in due})
        for total in RUN_LENGTHS
    }
    a_look = questions_per_look(policy)
    chosen = [category for category in policy.categories if only in {None, category.id}]
    return {
        "ok": True,
        "policy": _summary(policy),
        "failure": ON_FAILURE[policy.on_failure],
        "final": queries.final,
        "steps": steps,
        "pace": pace(queries),
        "guidance": strength(policy.guidance),
        "questions_per_image": {
            "look": a_look,
            **{str(total): questions_in(policy, total) for total in RUN_LENGTHS},
        },
        "categories": [_category(policy, category) for category in chosen],
        "rules": [rule.model_dump(mode="json") for rule in policy.rules if only is None or only in rule.all],
        "errors": [],
    }


def questions_in(policy: Policy, total: int) -> int:
    """How many questions one image takes in a run of so many steps, before any finding."""
    due = due_by_category(policy, total)
    asked = sum(len(category.terms) * (len(due[category.id]) + policy.queries.final) for category in policy.categories)
    return asked * (2 if policy.question.paired else 1)


def _category(policy: Policy, category: Category) -> dict[str, Any]:
    return {
        "id": category.id,
        "title": category.title,
        "mode": "shadow" if policy.shadow(category.id) else "enforce",
        "severity": category.severity,
        "calibration": category.calibration.model_dump(mode="json") if category.calibration else None,
        "threshold": category.model_dump(mode="json")["threshold"],
        "action": category.action,
        "still_present": category.still_present,
        "scale": policy.scale(category.id),
        "own_steps": {str(total): list(due_by_category(policy, total)[category.id]) for total in RUN_LENGTHS}
        if category.queries
        else None,
        "questions": [question.text for question in questions(policy) if question.category == category.id],
        "allowed_questions": [question.text for question in allowed_questions(policy, category.id)],
        "excused": {
            term: [question.text for question in allowed_questions(policy, category.id, [term])]
            for term in category.terms
            if category.excuses(term)
        },
        "words": list(category.words(category.terms)),
    }


def _print_checked(policies: dict[str, Policy]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for file, policy in policies.items():
        count = len(policy.categories)
        table.add_row(
            Text("ok", style="green"),
            Text(file),
            Text(f"{policy.name} {policy.revision}"),
            Text(f"{count} {'category' if count == 1 else 'categories'}"),
            Text(policy.digest[:12], style="dim"),
        )
    if policies:
        Console().print(table)


def _print_explanation(document: dict[str, Any]) -> None:
    policy, per_image = document["policy"], document["questions_per_image"]
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("digest", Text(policy["digest"]))
    facts.add_row("mode", Text(policy["mode"]))
    facts.add_row("on failure", Text(f"{policy['on_failure']}. {document['failure']}"))
    facts.add_row("questions", Text(f"{per_image['look']} a look at one image"))
    for total, due in document["steps"].items():
        looks = [*map(str, due), *(["the finished image"] if document["final"] else [])]
        facts.add_row(f"{total} steps", Text(f"looks at {', '.join(looks)}: {per_image[total]} questions an image"))
    for sentence in document["pace"]:
        facts.add_row("", Text(sentence))
    facts.add_row("steers", Text(document["guidance"]))
    parts: list[Any] = [Text(f"{policy['name']} {policy['revision']}", style="bold"), Padding(facts, (0, 0, 1, 2))]
    for category in document["categories"]:
        parts += [Text(f"{category['title']} ({category['id']})", style="bold"), _category_table(category)]
    for rule in document["rules"]:
        parts.append(Text(f"{' and '.join(rule['all'])} in one image: {rule['action']}"))
    Console().print(Group(*parts))


def _in_words(threshold: float | list[dict[str, float]]) -> str:
    if not isinstance(threshold, list):
        return str(threshold)
    return ", ".join(f"{each['value']:g} ({each['from']:g} to {each['to']:g} of the run)" for each in threshold)


def _category_table(category: dict[str, Any]) -> Padding:
    table = Table(box=None, show_header=False, pad_edge=False)
    then = f", {category['still_present']} if the finished image shows it" if category["still_present"] else ""
    shadow = " (shadow: recorded only)" if category["mode"] == "shadow" else ""
    table.add_row("does", Text(f"{category['action']}{then}{shadow}"))
    table.add_row("severity", Text(f"{category['severity']}, seen from probability {_in_words(category['threshold'])}"))
    if on := category["calibration"]:
        table.add_row("measured on", Text(f"{on['vlm']} {on['vlm_revision']}, in {on['file']}"))
    for total, due in (category["own_steps"] or {}).items():
        table.add_row(f"{total} steps", Text(f"asked about at {', '.join(map(str, due))} alone, and at the end"))
    table.add_row("asks", Text("\n".join(category["questions"])))
    if category["allowed_questions"]:
        table.add_row("excused by", Text("\n".join(category["allowed_questions"])))
    table.add_row("may inject", Text(", ".join(category["words"]) or "nothing"))
    return Padding(table, (0, 0, 1, 2))
