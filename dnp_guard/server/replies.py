"""Build the messages with which the service answers a host. Pure."""

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
    """Build the answer to a host that opened a session: the steps to query at, the policy, and the host's duties.

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
    """Return how a host treats its images when it cannot reach the service.

    ``closed`` withholds them, ``open`` delivers them, and ``last`` goes by the last answer. An answer cannot say that
    an image is to be blurred or blocked, so if the policy can decide that, the host gets ``closed`` instead of
    ``last``.
    """
    enforced = [category.action for category in policy.categories if not policy.shadow(category.id)]
    strict = {"blur", "block"} & {*enforced, *(rule.action for rule in policy.rules)}
    return "closed" if policy.on_failure == "last" and enforced and strict else policy.on_failure


def _user_previews(policy: Policy) -> Literal["withhold", "blur", "allow"]:
    """Return how a host shows the previews of unfinished images to its user.

    It withholds them under a policy with a sensitive category, shows them in shadow mode, and otherwise does as the
    policy says.
    """
    if any(category.sensitive for category in policy.categories):
        return "withhold"
    return "allow" if policy.mode == "shadow" else policy.preview.user_previews


def answer(driver: Driver) -> AnswerMessage:
    """Build the answer to a query: for every image its negative prompt, and whether its preview may be shown."""
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
    """Return the host's action for an image with an outcome: ``pass``, ``blur`` or ``block``."""
    if withheld(outcome):
        return "block"
    return "blur" if outcome is Outcome.BLURRED else "pass"


def refused(driver: Driver) -> Verdicts:
    """Return the verdicts, all ``block``, of a session that ended before its first step because of an input picture."""
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
    """Return the verdict on every input picture of a request; ``pass`` for all if the policy does not check them.

    Args:
        reports: reports on the pictures; empty if the policy does not check them.
        count: number of pictures.
    """
    actions = [report.action for report in reports] or ["pass"] * count
    return InputVerdicts(images=[InputVerdict(index=index, action=action) for index, action in enumerate(actions)])


def decision(outcome: Outcome, can: Sequence[str]) -> Outcome:
    """Return the outcome in a form that the host knows.

    Args:
        outcome: outcome of an image.
        can: features that the host announced. An older host does not know ``unasked``, and gets ``failed_open``.
    """
    return Outcome.FAILED_OPEN if outcome is Outcome.UNASKED and str(outcome) not in can else outcome


def similarities(sent: Sequence[PreviewPicture], images: int) -> list[float]:
    """Return, for every image, how similar its latents are to the prediction that was last checked.

    Args:
        sent: the pictures of a query, with the similarities that the host measured.
        images: number of images in the batch.

    Returns:
        One cosine per image, -1 for an image that was not sent; empty if a picture has none.
    """
    measured = {picture.index: picture.similarity for picture in sent if picture.similarity is not None}
    return [measured.get(index, -1.0) for index in range(images)] if len(measured) == len(sent) else []


def policy(text: str, digest: str) -> Policy:
    """Rebuild the policy under which a session began.

    Args:
        text: JSON of the resolved policy, from the store.
        digest: digest of the policy file.
    """
    original = Policy.model_validate_json(text)
    # Under an override the digest stays that of the file, as when the session began.
    original.__dict__["digest"] = digest
    return original
