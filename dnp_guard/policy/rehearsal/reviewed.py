"""Test cases of a policy, made from what people said of recorded images. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.audit.events import QueryAnswered
from dnp_guard.audit.read.verdicts import FALSE_ALARM, RIGHT, image_of
from dnp_guard.types import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dnp_guard.audit.read.verdicts import Reviewed
    from dnp_guard.policy.model.policy import Policy


def cases(
    policy: Policy, reviewed: Iterable[Reviewed], records: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """A case for each image that people agree on, with what was seen in it at each look.

    A right decision has to stay as it is; where something was seen and is not there, the image has to come out clean,
    or monitored at most. A record holds what reached its threshold alone: nothing can be made of what was missed, nor
    of anything sensitive, of which nothing is kept.

    Args:
        policy: that the cases are for; images under another one of a different name are left out.
        reviewed: images with verdicts.
        records: of the same log.

    Returns:
        The cases, as a file of tests has them, and how many images none could be made of.
    """
    chosen, left = {}, 0
    for image in reviewed:
        verdict = image.agreed
        usable = verdict is not None and verdict.verdict in {RIGHT, FALSE_ALARM} and _known(policy, image)
        if not usable or verdict is None:
            left += 1
            continue
        chosen[image.row.request, image.row.image] = (image, verdict.verdict)
    terms = {term for category in policy.categories for term in category.terms}
    looks: dict[tuple[str, int], list[Mapping[str, float]]] = {key: [] for key in chosen}
    final: dict[tuple[str, int], Mapping[str, float]] = {}
    for record in records:
        key = image_of(record)
        if record["event"] != QueryAnswered.name or key not in chosen:
            continue
        if "step" in record:
            looks[key].append(_seen(record, terms))
        else:
            final[key] = _seen(record, terms)
    return [
        {
            "name": f"{'Right' if verdict == RIGHT else 'False alarm'}: image {image.row.id}",
            **({"looks": looks[key]} if looks[key] else {}),
            **({"final": final[key]} if final.get(key) else {}),
            "expect": {"decision": _expected(policy, image, verdict)},
        }
        for key, (image, verdict) in chosen.items()
    ], left


def _known(policy: Policy, image: Reviewed) -> bool:
    ids = {category.id for category in policy.categories if not category.sensitive}
    return image.row.policy.partition(" ")[0] == policy.name and image.row.sights.keys() <= ids


def _expected(policy: Policy, image: Reviewed, verdict: str) -> str:
    if verdict == RIGHT:
        return image.row.decision
    only_records = any(policy.category(name).action == Action.MONITOR for name in image.row.sights)
    return str(Outcome.MONITORED if only_records else Outcome.CLEAN)


def _seen(record: Mapping[str, Any], terms: set[str]) -> dict[str, float]:
    findings = record.get("findings")
    return {
        str(each["term"]): float(each["probability"])
        for each in (findings if isinstance(findings, list) else ())
        if isinstance(each, dict) and each.get("term") in terms and isinstance(each.get("probability"), int | float)
    }
