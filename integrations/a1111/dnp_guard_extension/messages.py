"""What the guard service says, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Session:
    """A session that the service has opened.

    Attributes:
        id: of the session; the audit's records carry it as ``request``.
        due: 0-based steps at which a look is due; None where the number of steps is not known.
        due_progress: the same as shares of the run.
        mode: ``enforce`` or ``shadow``.
        skip_similar: how like the last prediction looked at one may be for the look to be skipped; None for never.
        on_failure: ``closed``, ``open`` or ``last``.
        look_s: how long a look may take.
        user_previews: ``withhold``, ``blur`` or ``allow``.
        guidance: how a negative enters the guidance; empty where the service does not say.
        drawn: the images that it is about: those of the batch, or those of them that are drawn again.
        retries: how often an image may have to be drawn again.
        refused: whether it is over, as the policy refuses the request for one of its own pictures.
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
    refused: bool = False


@dataclass(frozen=True)
class Attention:
    """How a negative steers the attention over the prompt.

    Attributes:
        phi: how far it extrapolates.
        tau: how long a feature vector may become, as a multiple of what it was.
        alpha: the share of what is steered.
        parts: negatives that steer one after the other.
        mask: the share of the positions that are steered.
    """

    phi: float
    tau: float
    alpha: float
    parts: tuple[str, ...]
    mask: float = 1.0


@dataclass(frozen=True)
class Negative:
    """What an image is steered away from.

    Attributes:
        text: words of the policy.
        scale: of the separate term; None where the words take the place of the unconditional, or steer by attention
            alone.
        mode: ``separate``, ``replace`` or ``attention``.
        attention: how it steers there; None in the other modes.
    """

    text: str
    scale: float | None
    mode: str
    attention: Attention | None = None


@dataclass(frozen=True)
class Answer:
    """What a look has led to.

    Attributes:
        answered: whether the look was answered; where it was not, what held holds on.
        negatives: what each image is steered away from.
        mode: how a negative enters the guidance.
        previews: what may be shown of each unfinished image: ``withhold``, ``blur`` or ``allow``; empty where the
            service does not say it per image.
    """

    answered: bool
    negatives: tuple[Negative | None, ...]
    mode: str
    previews: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the final look says of one image.

    Attributes:
        decision: the image's outcome.
        action: ``pass``, ``blur`` or ``block``; to hosts that can, ``retry``: draw it again.
        receipt: signed by the service; None where it signs none.
        message: what a person reads in place of a withheld image; empty where the service gives none.
        otherwise: what is done for ``retry`` where it is not drawn again.
        earlier: whether this is of the picture of the attempt before, which is then the one to deliver.
    """

    decision: str
    action: str
    receipt: str | None
    message: str = ""
    otherwise: str = "block"
    earlier: bool = False
