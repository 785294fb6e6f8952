"""The answers of the guard service, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Session:
    """An open session of the service.

    Attributes:
        id: id of the session; the audit's records carry it as ``request``.
        due: 0-based steps at which a look is due; None if the number of steps is unknown.
        due_progress: the due steps as shares of the run.
        mode: ``enforce`` or ``shadow``.
        skip_similar: similarity to the last prediction looked at from which a look is skipped; None for never.
        on_failure: ``closed``, ``open`` or ``last``.
        look_s: seconds that a look may take.
        user_previews: ``withhold``, ``blur`` or ``allow``.
        guidance: how a negative enters the guidance; empty if the service does not tell.
        drawn: the images of the current attempt: all of the batch, or those to draw again.
        retries: number of times that an image may be drawn again.
        asks: whether the policy asks about the request's own pictures.
        refused: whether the policy refuses the request for one of its own pictures, which ends the session.
    """

    id: str
    due: tuple[int, ...] | None
    due_progress: tuple[float, ...]
    mode: str
    skip_similar: float | None
    on_failure: str
    look_s: float
    user_previews: str
    guidance: str = ""
    drawn: tuple[int, ...] = (0,)
    retries: int = 0
    asks: bool = False
    refused: bool = False


@dataclass(frozen=True)
class Attention:
    """How a negative steers the attention over the prompt.

    Attributes:
        phi: factor of the extrapolation.
        tau: largest growth of a feature vector, as a factor.
        alpha: share of the steered features.
        parts: the negatives, which steer one after the other.
        mask: share of the positions to steer.
    """

    phi: float
    tau: float
    alpha: float
    parts: tuple[str, ...]
    mask: float = 1.0


@dataclass(frozen=True)
class Negative:
    """The negative of one image.

    Attributes:
        text: words of the policy.
        scale: scale of the separate term; None without such a term.
        mode: ``separate``, ``replace`` or ``attention``.
        attention: its parameters in that mode; None in the other modes.
    """

    text: str
    scale: float | None
    mode: str
    attention: Attention | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a look.

    Attributes:
        answered: whether the model answered; if not, the negatives stay in force.
        negatives: the negatives, one per image; None for an image without one.
        mode: how a negative enters the guidance.
        previews: how the unfinished images may be shown: ``withhold``, ``blur`` or ``allow``; empty if the service
            does not decide per image.
    """

    answered: bool
    negatives: tuple[Negative | None, ...]
    mode: str
    previews: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The verdict of the final look on one image.

    Attributes:
        decision: the image's outcome.
        action: ``pass``, ``blur`` or ``block``; for hosts that can draw again also ``retry``.
        receipt: the service's signed receipt; None without one.
        message: the words for a person in place of a withheld image; empty for the usual ones.
        otherwise: the action in place of ``retry`` if the image is not drawn again.
        earlier: whether the verdict is on the picture of the earlier attempt, which is then delivered.
    """

    decision: str
    action: str
    receipt: str | None
    message: str = ""
    otherwise: str = "block"
    earlier: bool = False
