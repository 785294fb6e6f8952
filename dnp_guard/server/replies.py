"""What the protocol says of a session. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dnp_guard.generation import pacing
from dnp_guard.hosts.delivery import withheld
from dnp_guard.hosts.protocol import AnswerMessage, InputVerdict, InputVerdicts, Opened, Steer, Verdict, Verdicts
from dnp_guard.hosts.withheld import words
from dnp_guard.policy import Policy
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.generation.driver import Driver
    from dnp_guard.generation.outcomes import UserPreviews
    from dnp_guard.hosts.protocol import Open, PreviewPicture
    from dnp_guard.types import GuidanceMode, InputReport, Negative


def opened(driver: Driver, asked: Open, idle_s: float) -> Opened:
    """What the host of a new session has to do.

    Args:
        driver: of the session, which has begun.
        asked: what the host asked for.
        idle_s: seconds of silence after which it expires.
    """
    policy = driver.policy
    due = _due(policy, asked.steps) if asked.steps is not None else None
    return Opened(
        session=driver.id,
        due=due,
        due_progress=[tick / pacing.TICKS for tick in _due(policy, pacing.TICKS)],
        policy=policy.name,
        on_failure=_on_failure(policy),
        deadline_ms=policy.queries.deadline_ms,
        user_previews=_user_previews(policy),
        mode=policy.mode,
        guidance=policy.guidance.mode,
        digest=policy.digest,
        final=policy.queries.final,
        skip_similar=policy.queries.skip_similar,
        vocabulary=list(policy.vocabulary()),
        idle_s=idle_s,
        inputs=policy.asks_inputs and "inputs" in (asked.can or ()),
        retries=policy.retries.most if policy.retries is not None and "retry" in (asked.can or ()) else 0,
        negatives=_steered(driver) if driver.session.state.drawing else [],
    )


def _on_failure(policy: Policy) -> Literal["closed", "open", "last"]:
    """What a host does that cannot reach the service.

    ``last`` is for a host whose last answer cannot have been that the image is to be blurred or blocked: an answer does
    not tell. A policy that may find so is ``closed`` to it.
    """
    enforced = [category.action for category in policy.categories if not policy.shadow(category.id)]
    strict = {"blur", "block"} & {*enforced, *(rule.action for rule in policy.rules)}
    return "closed" if policy.on_failure == "last" and enforced and strict else policy.on_failure


def _user_previews(policy: Policy) -> Literal["withhold", "blur", "allow"]:
    """What may be shown of unfinished images: nothing under a sensitive category, all where nothing is altered."""
    if any(category.sensitive for category in policy.categories):
        return "withhold"
    return "allow" if policy.mode == "shadow" else policy.preview.user_previews


def _due(policy: Policy, total: int) -> list[int]:
    return sorted({step for steps in pacing.due_by_category(policy, total).values() for step in steps})


def unasked(policy: Policy, total: int | None, asked: int) -> str:
    """Which due look no query has come for, at its step or later; empty where there is none."""
    late = [step for step in _due(policy, total or pacing.TICKS) if step > asked]
    where = "step {}" if total else f"{{}} of {pacing.TICKS} parts of the run"
    return f"no query came for {where.format(late[0])}" if late else ""


def answer(driver: Driver) -> AnswerMessage:
    """What every image that is drawn is steered away from now, and what may be shown of it."""
    return AnswerMessage(answered=not driver.session.state.missed, images=_steered(driver))


def _steered(driver: Driver) -> list[Steer]:
    mode, negatives, previews = driver.policy.guidance.mode, driver.negatives, driver.user_previews
    return [_steer(index, negatives[index], mode, previews[index]) for index in driver.session.state.drawn]


def _steer(index: int, negative: Negative | None, mode: GuidanceMode, preview: UserPreviews) -> Steer:
    if negative is None:
        return Steer(index=index, negative=None, scale=None, mode=mode, action="none", preview=preview)
    return Steer(
        index=index,
        negative=negative.text,
        scale=negative.scale,
        mode=negative.mode,
        action="steer",
        preview=preview,
    )


def action(outcome: Outcome) -> Literal["pass", "blur", "block"]:
    """What a host does with an image of this outcome."""
    if withheld(outcome):
        return "block"
    return "blur" if outcome is Outcome.BLURRED else "pass"


def refused(driver: Driver) -> Verdicts:
    """The verdicts of a session that is over before its first step, for one of the request's own pictures."""
    assert driver.report is not None  # noqa: S101 (a session that is over has one)
    images = [
        Verdict(
            index=index,
            decision=image.decision,
            action="block",
            receipt=None,
            why=image.why,
            code=image.code,
            message=words(driver.policy, image.decision),
        )
        for index, image in enumerate(driver.report.images)
    ]
    return Verdicts(images=images)


def of_inputs(reports: Sequence[InputReport], count: int) -> InputVerdicts:
    """What becomes of a request for each of its pictures; where the policy does not ask, it goes on."""
    actions = [report.action for report in reports] or ["pass"] * count
    return InputVerdicts(images=[InputVerdict(index=index, action=action) for index, action in enumerate(actions)])


def decision(outcome: Outcome, can: Sequence[str]) -> Outcome:
    """The outcome as a host is told it: one that it does not know is the nearest that every host does.

    Args:
        outcome: of an image.
        can: what the host said it knows.
    """
    return Outcome.FAILED_OPEN if outcome is Outcome.UNASKED and str(outcome) not in can else outcome


def similarities(sent: Sequence[PreviewPicture], images: int) -> list[float]:
    """What the host measured, by image; nothing where it did not measure all that it sends."""
    found = {each.index: each.similarity for each in sent if each.similarity is not None}
    return [found.get(index, -1.0) for index in range(images)] if len(found) == len(sent) else []


def policy(text: str, digest: str) -> Policy:
    """The policy that a session began with, from its JSON."""
    kept = Policy.model_validate_json(text)
    # Under an override its digest stays that of the file, as when the session began.
    kept.__dict__["digest"] = digest
    return kept
