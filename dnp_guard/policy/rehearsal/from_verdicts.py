"""Make test cases of a policy from people's verdicts on recorded images. Pure."""

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
    """Make one test case per image on whose verdict people agree, with the recorded findings as the model's answers.

    The case expects that a right decision stays the same, and that after a false alarm the image is clean, or
    monitored at most. A record contains only findings that reached their threshold, so a missed finding gives no case,
    and neither does a sensitive finding, which is not recorded in detail.

    Args:
        policy: policy that the cases are for; images of a policy with another name are left out.
        reviewed: images with verdicts.
        records: records of the same log.

    Returns:
        The cases in the format of a test file, and the number of images left out.
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
        str(finding["term"]): float(finding["probability"])
        for finding in (findings if isinstance(findings, list) else ())
        if isinstance(finding, dict)
        and finding.get("term") in terms
        and isinstance(finding.get("probability"), int | float)
    }
