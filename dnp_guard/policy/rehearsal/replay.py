"""Recorded findings, judged anew under two policies. What another negative would have led to is not known.

A record holds what was found at or over the thresholds of the time, and nothing under them. So where the new policy
asks for less, or for other things, a replay says that there may be more than it sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dnp_guard.policy.compare.diff import excused
from dnp_guard.policy.model.questions import questions
from dnp_guard.policy.model.thresholds import falls
from dnp_guard.policy.rehearsal.rehearsed import RecordedQuery, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.rehearsal.rehearsed import Answer, Rehearsed
    from dnp_guard.types import Question

_MISSES = ("vlm_", "guard_error")
"""How the reason of a look without an answer begins."""


@dataclass(frozen=True, slots=True)
class Differing:
    """An image that would have gone otherwise.

    Attributes:
        request: the generation.
        image: its index.
        step: of the first negative that differs, from which on nothing is known; None where only the end differs.
        before: the outcome, or the negative at that step, under the first policy.
        after: the same under the second.
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
    """What recorded generations would have come to.

    Attributes:
        images: finished images of the record that were made under the first policy.
        comparable: of those, how many the record tells to the end.
        differing: of all, those that would have gone otherwise.
        left_out: images that are not replayed: of another policy, unfinished, or with a sensitive finding.
        unseen: categories of which the second policy would find more than the record holds.
    """

    images: int
    comparable: int
    differing: tuple[Differing, ...]
    left_out: int
    unseen: tuple[str, ...]


@dataclass(slots=True)
class _Track:
    """What the record says of one image."""

    digest: str = ""
    looks: list[tuple[int, Answer | None]] = field(default_factory=list)
    queries: list[RecordedQuery] = field(default_factory=list)
    final: Answer | None = None
    finished: bool = False
    found: set[str] = field(default_factory=set)


def replay(before: Policy, after: Policy, lines: Iterable[bytes]) -> Replay:
    """Judge a record under two policies.

    Args:
        before: the policy that the record was made under.
        after: the one to compare.
        lines: of an audit log; what is no record is passed over.
    """
    tracks: dict[tuple[str, int], _Track] = {}
    for line in lines:
        _take(tracks, line)
    sensitive = {category.id for each in (before, after) for category in each.categories if category.sensitive}
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
        for (of, _), each in tracks.items():
            if of == request:
                each.looks.append((record["step"], None))
                each.queries.append(RecordedQuery(None))
    if event not in {"query", "request.finished"} or not isinstance(record.get("image"), int):
        return
    track = tracks.setdefault((request, record["image"]), _Track())
    track.digest = str(record.get("policy", {}).get("digest", ""))
    if event == "request.finished":
        track.finished = True
        return
    found = record.get("findings", [])
    track.found |= {finding["category"] for finding in found}
    told = [finding for finding in found if "term" in finding]  # of a sensitive category it is not
    answer = _answer({(finding["category"], finding["term"]): float(finding["probability"]) for finding in told})
    if "step" in record:
        track.looks.append((record["step"], answer))
        steps, asked = record.get("steps"), record.get("asked")
        track.queries.append(
            RecordedQuery(record["step"] / steps if steps else None, frozenset(asked) if asked is not None else None)
        )
    else:
        track.final = answer


def _answer(found: Mapping[tuple[str, str], float]) -> Answer:
    def answer(asked: Sequence[Question]) -> Sequence[float]:
        return [found.get((question.category, question.term), 0.0) for question in asked]

    return answer


def _parting(steps: Sequence[int], one: Rehearsed, other: Rehearsed) -> tuple[int, str, str] | None:
    """Where the negatives of two courses first differ."""
    for step, here, there in zip(steps, one.decisions, other.decisions, strict=True):
        texts = [each.negative.text if each and each.negative else "no negative" for each in (here, there)]
        scales = [each.negative.scale if each and each.negative else None for each in (here, there)]
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
