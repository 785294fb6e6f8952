"""Immutable values for the answers of the guard service: sessions, answers to looks, and verdicts.

A look shows the images of one step to the service; a negative is a text that the host steers an image away from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Session:
    """The service's session for one batch of images.

    Attributes:
        id: id of the session; its audit records carry it as ``request``.
        due: 0-based steps at which a look is due; None if the number of steps is unknown.
        due_progress: the due steps as shares of the run, 0 to 1.
        mode: ``enforce``, or ``shadow``, which records findings and withholds nothing.
        skip_similar: skip the query about an image whose prediction is at least this similar, by their cosine, to the
            one that was queried last; None for never.
        on_failure: whether a failure of the guard withholds the images: ``closed`` (it does), ``open`` (it does not)
            or ``last`` (it does not if an earlier look was answered).
        look_s: seconds to wait for the answer to a look.
        user_previews: how users may see unfinished images: ``withhold``, ``blur`` or ``allow``.
        guidance: how a negative steers: ``separate``, ``replace`` or ``attention``; empty if the service does not tell.
        drawn: indices of the images of the current attempt: all of the batch, or those that are generated again.
        retries: how often an image may be generated again after the final look.
        asks: whether the policy asks about the request's input pictures.
        refused: whether the policy refuses the request because of an input picture, which ends the session.
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
    """Parameters for steering in the cross-attention over the prompt, by :func:`attention.normalised`.

    Attributes:
        phi: how far to extrapolate away from the negative; 1 changes nothing.
        tau: largest growth of a feature vector, as a factor.
        alpha: share of the steered features in the mix with the original ones, 0 to 1.
        parts: texts of the negatives, which steer one after the other.
        mask: share of the image positions to steer, 0 to 1.
    """

    phi: float
    tau: float
    alpha: float
    parts: tuple[str, ...]
    mask: float = 1.0


@dataclass(frozen=True)
class Negative:
    """A text from the policy that one image is steered away from.

    Attributes:
        text: the words.
        scale: scale of a guidance term of its own; None without such a term.
        mode: ``separate`` (a guidance term of its own), ``replace`` (in place of the negative prompt) or ``attention``.
        attention: parameters of the mode ``attention``; None in the other modes.
    """

    text: str
    scale: float | None
    mode: str
    attention: Attention | None = None


@dataclass(frozen=True)
class Answer:
    """The service's answer to a look at the images of one step.

    Attributes:
        answered: whether the vision-language model answered; if not, earlier negatives stay in force.
        negatives: one entry per shown image; None for an image that is not steered.
        mode: how a negative steers: ``separate``, ``replace`` or ``attention``.
        previews: per shown image, how users may see it unfinished: ``withhold``, ``blur`` or ``allow``; empty if the
            service does not decide per image.
    """

    answered: bool
    negatives: tuple[Negative | None, ...]
    mode: str
    previews: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The service's verdict on one finished image.

    Attributes:
        decision: name of the outcome in the audit record, such as ``failed_closed``.
        action: ``pass``, ``blur`` or ``block``; also ``retry``, if the host can generate the image again.
        receipt: the service's signed receipt; None without one.
        message: text to show in place of a withheld image; empty for the usual one.
        otherwise: the action in place of ``retry`` if the image is not generated again.
        earlier: whether the verdict concerns the picture of the earlier attempt, which is then delivered.
    """

    decision: str
    action: str
    receipt: str | None
    message: str = ""
    otherwise: str = "block"
    earlier: bool = False
