"""Build the protocol's messages about a session. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dnp_guard.generation import pacing
from dnp_guard.hosts.delivery import withheld
from dnp_guard.hosts.protocol import (
    AnswerMessage,
    InputVerdict,
    InputVerdicts,
    Opened,
    Steer,
    SteerAttention,
    Verdict,
    Verdicts,
)
from dnp_guard.hosts.withheld import words
from dnp_guard.policy import Policy
from dnp_guard.server import due_queries
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.generation.driver import Driver
    from dnp_guard.generation.outcomes import UserPreviews
    from dnp_guard.hosts.protocol import Open, PreviewPicture
    from dnp_guard.types import GuidanceMode, InputReport, Negative


def opened(driver: Driver, asked: Open, idle_s: float) -> Opened:
    """Tell the host of a new session what to do.

    Args:
        driver: driver of the session, which has begun.
        asked: the host's request.
        idle_s: seconds without a request after which the session expires.
    """
    policy = driver.policy
    due = due_queries.due(policy, asked.steps) if asked.steps is not None else None
    return Opened(
        session=driver.id,
        due=due,
        due_progress=[tick / pacing.TICKS for tick in due_queries.due(policy, pacing.TICKS)],
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
    """Return what a host does when it cannot reach the service.

    ``last`` keeps the last answer. An answer cannot say that an image is to be blurred or blocked, so a host gets
    ``closed`` instead if the policy can decide that.
    """
    enforced = [category.action for category in policy.categories if not policy.shadow(category.id)]
    strict = {"blur", "block"} & {*enforced, *(rule.action for rule in policy.rules)}
    return "closed" if policy.on_failure == "last" and enforced and strict else policy.on_failure


def _user_previews(policy: Policy) -> Literal["withhold", "blur", "allow"]:
    """Return what may be shown of unfinished images: nothing if sensitive, everything if nothing is altered."""
    if any(category.sensitive for category in policy.categories):
        return "withhold"
    return "allow" if policy.mode == "shadow" else policy.preview.user_previews


def answer(driver: Driver) -> AnswerMessage:
    """Tell the host what to steer every image away from, and what may be shown of it."""
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
        attention=_attention(negative),
        action="steer",
        preview=preview,
    )


def _attention(negative: Negative) -> SteerAttention | None:
    how = negative.attention
    if how is None:
        return None
    parts = [", ".join(words) for words in negative.groups]
    return SteerAttention(phi=how.phi, tau=how.tau, alpha=how.alpha, parts=parts, mask=how.mask)


def action(outcome: Outcome) -> Literal["pass", "blur", "block"]:
    """Return what a host does with an image, given its outcome."""
    if withheld(outcome):
        return "block"
    return "blur" if outcome is Outcome.BLURRED else "pass"


def refused(driver: Driver) -> Verdicts:
    """Return the verdicts of a session that a picture of its own request ended before the first step."""
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
    """Return the verdict on each picture of a request; if the policy does not ask about them, the request goes on."""
    actions = [report.action for report in reports] or ["pass"] * count
    return InputVerdicts(images=[InputVerdict(index=index, action=action) for index, action in enumerate(actions)])


def decision(outcome: Outcome, can: Sequence[str]) -> Outcome:
    """Return the outcome that a host is told: if it does not know the outcome, the nearest one that every host knows.

    Args:
        outcome: outcome of an image.
        can: features that the host announced.
    """
    return Outcome.FAILED_OPEN if outcome is Outcome.UNASKED and str(outcome) not in can else outcome


def similarities(sent: Sequence[PreviewPicture], images: int) -> list[float]:
    """Return the similarities that the host measured, by image; empty if it did not measure all that it sends."""
    measured = {picture.index: picture.similarity for picture in sent if picture.similarity is not None}
    return [measured.get(index, -1.0) for index in range(images)] if len(measured) == len(sent) else []


def policy(text: str, digest: str) -> Policy:
    """Rebuild the policy that a session began with from its JSON."""
    original = Policy.model_validate_json(text)
    # Under an override the digest stays that of the file, as when the session began.
    original.__dict__["digest"] = digest
    return original
