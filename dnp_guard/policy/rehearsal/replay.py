"""Decide about recorded findings again, under two policies. The effect of a changed negative prompt is not known.

An audit record contains only findings that reached the thresholds of its time. If the new policy has lower thresholds
or other questions, a replay reports that there may be findings that it cannot see.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dnp_guard.policy.compare.diff import excused
from dnp_guard.policy.model.questions import questions
from dnp_guard.policy.model.thresholds import falls
from dnp_guard.policy.rehearsal.judging import RecordedQuery, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.rehearsal.judging import Answer, Rehearsed
    from dnp_guard.types import Question

_MISSES = ("vlm_", "guard_error")
"""Prefixes of the reason of a query without an answer."""


@dataclass(frozen=True, slots=True)
class Differing:
    """An image that would have had another result.

    Attributes:
        request: id of the generation.
        image: index of the image.
        step: step of the first negative that differs, after which nothing is known; None if only the end differs.
        before: outcome, or negative at that step, under the first policy.
        after: outcome, or negative at that step, under the second policy.
    """

    request: str
    image: int
    step: int | None
    before: str
    after: str

    def __str__(self) -> str:
        at = f" from step {self.step} on" if self.step is not None else ""
        return f"{self.request[:12]} image {self.image}: {self.before} → {self.after}{at}"


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of deciding about recorded generations again.

    Attributes:
        images: number of finished images that were generated under the first policy.
        comparable: number of those with the same negatives under both policies, so that their outcomes are comparable.
        differing: images that would have had another result.
        left_out: number of images not replayed: of another policy, unfinished, or with a sensitive finding.
        unseen: categories of which the second policy could find more than the record contains.
    """

    images: int
    comparable: int
    differing: tuple[Differing, ...]
    left_out: int
    unseen: tuple[str, ...]


@dataclass(slots=True)
class _Track:
    """The recorded queries of one image, collected from the lines of an audit log."""

    digest: str = ""
    looks: list[tuple[int, Answer | None]] = field(default_factory=list)
    queries: list[RecordedQuery] = field(default_factory=list)
    final: Answer | None = None
    finished: bool = False
    found: set[str] = field(default_factory=set)


def replay(before: Policy, after: Policy, lines: Iterable[bytes]) -> Replay:
    """Decide about the images of an audit log under two policies, and list the images with different results.

    Args:
        before: policy that the record was made under.
        after: policy to compare with it.
        lines: lines of an audit log; a line that is not a record is skipped.
    """
    tracks: dict[tuple[str, int], _Track] = {}
    for line in lines:
        _take(tracks, line)
    sensitive = {category.id for policy in (before, after) for category in policy.categories if category.sensitive}
    chosen = {
        key: track
        for key, track in tracks.items()
        if track.finished and track.digest == before.digest and not track.found & sensitive
    }
    differing: list[Differing] = []
    comparable = 0
    for (request, image), track in chosen.items():
        looks = [look for _, look in track.looks]
        one, other = (run(policy, looks, track.final, track.queries) for policy in (before, after))
        steps = [step for step, _ in track.looks]
        if (parted := _parting(steps, one, other)) is not None:
            differing.append(Differing(request, image, *parted))
            continue
        comparable += 1
        if one.outcome != other.outcome:
            differing.append(Differing(request, image, None, str(one.outcome), str(other.outcome)))
    return Replay(len(chosen), comparable, tuple(differing), len(tracks) - len(chosen), _unseen(before, after))


def _take(tracks: dict[tuple[str, int], _Track], line: bytes) -> None:
    try:
        record: Any = json.loads(line)
        event, request = record["event"], record["request"]
    except (ValueError, KeyError, TypeError):
        return
    if event == "degraded" and str(record.get("reason", "")).startswith(_MISSES) and "step" in record:
        for (of, _), track in tracks.items():
            if of == request:
                track.looks.append((record["step"], None))
                track.queries.append(RecordedQuery(None))
    if event not in {"query", "request.finished"} or not isinstance(record.get("image"), int):
        return
    track = tracks.setdefault((request, record["image"]), _Track())
    track.digest = str(record.get("policy", {}).get("digest", ""))
    if event == "request.finished":
        track.finished = True
        return
    findings = record.get("findings", [])
    track.found |= {finding["category"] for finding in findings}
    named = [finding for finding in findings if "term" in finding]  # a sensitive finding has no term
    answer = _answer({(finding["category"], finding["term"]): float(finding["probability"]) for finding in named})
    if "step" in record:
        track.looks.append((record["step"], answer))
        steps, asked = record.get("steps"), record.get("asked")
        track.queries.append(
            RecordedQuery(record["step"] / steps if steps else None, frozenset(asked) if asked is not None else None)
        )
    else:
        track.final = answer


def _answer(probabilities: Mapping[tuple[str, str], float]) -> Answer:
    def answer(asked: Sequence[Question]) -> Sequence[float]:
        return [probabilities.get((question.category, question.term), 0.0) for question in asked]

    return answer


def _parting(steps: Sequence[int], one: Rehearsed, other: Rehearsed) -> tuple[int, str, str] | None:
    """Return the first step at which two policies inject different negatives, and both negatives; None if none."""
    for step, here, there in zip(steps, one.decisions, other.decisions, strict=True):
        texts = [
            decision.negative.text if decision and decision.negative else "no negative" for decision in (here, there)
        ]
        scales = [decision.negative.scale if decision and decision.negative else None for decision in (here, there)]
        if texts[0] != texts[1]:
            return step, texts[0], texts[1]
        if scales[0] != scales[1]:
            return step, f"{texts[0]} at {scales[0]:g}", f"{texts[1]} at {scales[1]:g}"
    return None


def _unseen(before: Policy, after: Policy) -> tuple[str, ...]:
    old = {category.id: category for category in before.categories}
    asked = {(question.category, question.text) for question in questions(before)}
    anew = {question.category for question in questions(after) if (question.category, question.text) not in asked}
    return tuple(
        category.id
        for category in after.categories
        if category.id in anew
        or falls(old[category.id].threshold, category.threshold)
        or category.final_threshold < old[category.id].final_threshold
        or set(excused(old[category.id])) - set(excused(category))
        or (category.allowed and category.allowed_threshold > old[category.id].allowed_threshold)
    )
