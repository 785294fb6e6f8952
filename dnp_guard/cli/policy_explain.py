"""``dnp-guard policy explain``: explain the policy in force for a caller at a given time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.cli.policy_words import does, end, guidance, inputs, pace
from dnp_guard.errors import did_you_mean
from dnp_guard.generation import fields
from dnp_guard.generation.pacing import due_by_category
from dnp_guard.policy import allowed_questions, as_store, questions, questions_per_look
from dnp_guard.policy.force.store import is_folder, merged

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy
    from dnp_guard.policy.force.store import Selected

RUN_LENGTHS = (28, 50)
"""Usual numbers of sampler steps, to show the steps with a query."""

ON_FAILURE = {
    "closed": "An image that no later query clears is withheld.",
    "open": "The image passes, and is counted.",
    "last": "The last decision applies; without one, the image is withheld.",
}
IN_SHADOW = "Every image passes: the policy is in shadow."


def explain(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Policy file, folder of policies, or shipped name.")],
    *,
    category: Annotated[str | None, typer.Option(help="Explain only this category.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant of the caller.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of the caller.")] = None,
    surface: Annotated[str | None, typer.Option(help="Surface of the caller.")] = None,
    at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="Time in UTC; now by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain the policy in force for a caller: its queries and questions, its negatives, and its failure mode.

    The printed digest is the one in records and metrics.
    """
    time = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    in_force = selected(path, tenant, region, surface, time)
    policy = in_force.policy
    ids = [listed.id for listed in policy.categories]
    if category is not None and category not in ids:
        raise typer.BadParameter(f"{path} has no category '{category}'. {did_you_mean(category, ids)}")
    document = explanation(in_force, category) | {
        "for": {"tenant": tenant, "region": region, "surface": surface, "at": f"{time:%Y-%m-%dT%H:%M:%SZ}"}
    }
    if as_json:
        print_json(document)
    else:
        _print(document)


def selected(path: str, tenant: str | None, region: str | None, surface: str | None, at: datetime) -> Selected:
    """Return the policy in force for a caller.

    For a caller of whom nothing is known, the policy in a single file applies even if it selects other callers.

    Raises:
        PolicyError: a policy is invalid, or no policy is for this tenant, region and surface.
    """
    store = as_store(path)
    if not is_folder(path) and (tenant, region, surface) == (None, None, None):
        return merged(store.policies, None, None, at)
    return store.select(tenant, region, surface, at=at)


def summary(policy: Policy) -> dict[str, Any]:
    """Return the name, revision, digest, modes and number of categories of a policy, as ``--json`` prints them."""
    return {
        "name": policy.name,
        "revision": policy.revision,
        "digest": policy.digest,
        "mode": policy.mode,
        "on_failure": policy.on_failure,
        "categories": len(policy.categories),
    }


def explanation(in_force: Selected, only: str | None = None) -> dict[str, Any]:
    """Return the explanation of a policy, as ``--json`` prints it.

    Args:
        in_force: the policy, and the policies that it is merged from.
        only: the only category to explain; None for all.
    """
    policy = in_force.policy
    steps = {
        str(total): sorted({step for due in due_by_category(policy, total).values() for step in due})
        for total in RUN_LENGTHS
    }
    chosen = [category for category in policy.categories if only in {None, category.id}]
    return {
        "ok": True,
        "policy": summary(policy),
        "made_from": list(in_force.names),
        "exceptions": [
            {**fields.exception(exception), "reason": exception.reason}
            for exception in in_force.exceptions
            if only in {None, exception.category}
        ],
        "failure": IN_SHADOW if policy.mode == "shadow" else ON_FAILURE[policy.on_failure],
        "final": bool(policy.queries.final),
        "views": list(policy.queries.views),
        "retries": policy.retries.model_dump(mode="json", exclude_none=True) if policy.retries else None,
        "withheld": policy.withheld.model_dump(mode="json", exclude_none=True) if policy.withheld else None,
        "steps": steps,
        "pace": pace(policy.queries),
        "end": end(policy),
        "inputs": inputs(policy),
        "guidance": "; ".join(guidance(policy.guidance)),
        "questions_per_image": {
            "look": questions_per_look(policy),
            **{str(total): questions_in(policy, total) for total in RUN_LENGTHS},
        },
        "categories": [_category(policy, category) for category in chosen],
        "rules": [rule.model_dump(mode="json") for rule in policy.rules if only is None or only in rule.all],
        "errors": [],
    }


def questions_in(policy: Policy, total: int) -> int:
    """Count the questions about one image in a run of ``total`` steps, if nothing is found in it."""
    due = due_by_category(policy, total)
    asked = sum(
        len(category.terms) * (len(due[category.id]) + policy.queries.final_pictures) for category in policy.categories
    )
    return asked * (2 if policy.question.paired else 1)


def _category(policy: Policy, category: Category) -> dict[str, Any]:
    return {
        "id": category.id,
        "title": category.title,
        "taxonomy": category.taxonomy.model_dump() if category.taxonomy else None,
        "mode": "shadow" if policy.shadow(category.id) else "enforce",
        "severity": category.severity,
        "calibration": category.calibration.model_dump(mode="json") if category.calibration else None,
        "threshold": category.model_dump(mode="json")["threshold"],
        "final_threshold": category.final_threshold if policy.queries.final else None,
        "action": category.action,
        "still_present": category.still_present,
        "more_than_input": category.more_than_input,
        "does": does(policy, category),
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
        "allowed_threshold": category.allowed_threshold if category.cases else None,
        "words": list(category.words(category.terms)),
    }


def _print(document: dict[str, Any]) -> None:
    policy, per_image, for_whom = document["policy"], document["questions_per_image"], document["for"]
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("digest", Text(policy["digest"]))
    whom = [f"{kind} {for_whom[kind]}" for kind in ("tenant", "region", "surface") if for_whom[kind]]
    facts.add_row("in force", Text(f"for {', '.join(whom) or 'everyone'}, at {for_whom['at']}"))
    if document["made_from"] != [policy["name"]]:
        facts.add_row("made from", Text(", ".join(document["made_from"])))
    facts.add_row("mode", Text(policy["mode"]))
    facts.add_row("on failure", Text(f"{policy['on_failure']}. {document['failure']}"))
    facts.add_row("questions", Text(f"{per_image['look']} per query of one image"))
    for total, due in document["steps"].items():
        queries = [*map(str, due), *(["the finished image"] if document["final"] else [])]
        facts.add_row(
            f"{total} steps", Text(f"queries at {', '.join(queries)}: {per_image[total]} questions per image")
        )
    for sentence in document["pace"]:
        facts.add_row("", Text(sentence))
    if document["views"]:
        facts.add_row(
            "", Text(f"the finished image also as {', '.join(document['views'])}; the highest answer applies")
        )
    for sentence in document["end"]:
        facts.add_row("", Text(sentence))
    facts.add_row("inputs", Text(f"the pictures that a request contains are {document['inputs']}"))
    facts.add_row("steers", Text(document["guidance"]))
    for exception in document["exceptions"]:
        facts.add_row("exception", Text(_exception(exception)))
    parts: list[Any] = [Text(f"{policy['name']} {policy['revision']}", style="bold"), Padding(facts, (0, 0, 1, 2))]
    for category in document["categories"]:
        parts += [Text(f"{category['title']} ({category['id']})", style="bold"), _category_table(category)]
    for rule in document["rules"]:
        parts.append(Text(f"{' and '.join(rule['all'])} in one image: {rule['action']}"))
    Console().print(Group(*parts))


def _exception(exception: dict[str, Any]) -> str:
    changes = ", ".join(f"{key} {value}" for key, value in exception["set"].items())
    return (
        f"{exception['category']}: {changes}, until {exception['until']}, "
        f"approved by {exception['approved_by']}: {exception['reason']}"
    )


def _in_words(threshold: float | list[dict[str, float]]) -> str:
    if not isinstance(threshold, list):
        return str(threshold)
    return ", ".join(f"{part['value']:g} ({part['from']:g} to {part['to']:g} of the run)" for part in threshold)


def _category_table(category: dict[str, Any]) -> Padding:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("does", Text(category["does"]))
    seen = f"{category['severity']}, found from probability {_in_words(category['threshold'])}"
    if category["final_threshold"] not in {None, _whole(category["threshold"])}:
        seen += f"; in the finished image from {category['final_threshold']}"
    if category["more_than_input"] is not None:
        seen += f"; only if that is {category['more_than_input']:g} more than in the request's own picture"
    table.add_row("severity", Text(seen))
    if on := category["calibration"]:
        table.add_row("measured on", Text(f"{on['vlm']} {on['vlm_revision']}, in {on['file']}"))
    for total, due in (category["own_steps"] or {}).items():
        table.add_row(f"{total} steps", Text(f"queried only at {', '.join(map(str, due))}, and at the end"))
    table.add_row("asks", Text("\n".join(category["questions"])))
    if category["excused"]:
        excused = [f"{term}: {' '.join(asked)}" for term, asked in category["excused"].items()]
        table.add_row("excused by", Text("\n".join([*excused, f"from probability {category['allowed_threshold']} on"])))
    table.add_row("may inject", Text(", ".join(category["words"]) or "nothing"))
    return Padding(table, (0, 0, 1, 2))


def _whole(threshold: float | list[dict[str, float]]) -> float | None:
    return threshold if not isinstance(threshold, list) else None
