"""The messages between a host and the guard service, version 1; both sides use these classes.

An unknown key is an error: a misspelt request to be stricter must not be lost.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dnp_guard.types import GuidanceMode, Outcome

VERSION: Final = 1
FEATURES: Final = ("attention", "attention_shown", "ended", "inputs", "policy", "retry", "subject", "unasked")
"""Newer features of the protocol, as ``/readyz`` lists them; a host uses none that the service does not list."""
LARGEST: Final = 1_000_000

Finite = Annotated[float, Field(allow_inf_nan=False)]
Line = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Used = Literal["attention", "separate"]
USED: Final = (
    "How the host has steered. `separate`: it could not steer in attention space; the session goes on by `separate`."
)


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Host(_Message):
    """The host: ``host{name, version, target}`` of the record."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Name of the host.", examples=["a1111"]
    )
    version: Line = Field(default="", examples=["1.10.1"])
    target: Line = Field(default="", description="Guarded part of it.", examples=["txt2img"])


class Run(_Message):
    """Facts about the run, only for the record."""

    seed: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    scheduler: Line | None = None
    guidance_scale: Finite | None = None
    size: tuple[Count, Count] | None = Field(default=None, description="Width and height.")


class Open(_Message):
    """A generation is about to start."""

    protocol: Literal[1]
    host: Host
    prompts: list[str] = Field(
        default=[], max_length=1000, description="For the record, in the form that the policy sets."
    )
    steps: Count | None = Field(default=None, description="Steps of this run, over all its passes; null if unknown.")
    images: Count = Field(description="Number of images drawn together.")
    policy: Line | None = Field(
        default=None, description="Another policy of this token, which makes the session stricter."
    )
    region: Line | None = Field(default=None, description="Region, to select a policy from a store.")
    surface: Line | None = Field(default=None, description="Surface, to select a policy from a store.")
    run: Run = Run()
    subject: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="The person that it is for; the record keeps a keyed hash, for erasure."
    )
    can: list[Line] | None = Field(
        default=None,
        max_length=100,
        description="Abilities of the host, among the `features` of `/readyz`; others are ignored. `inputs`; "
        "`attention`: it reaches the attention of its denoiser; `attention_shown`: steering there was shown to work "
        "for this model; `retry`: it can draw images of a batch again from their seed, and heeds `earlier`; `unasked`: "
        "it knows this outcome of an image in shadow without any answered query, which is `failed_open` otherwise.",
    )
    retries: Line | None = Field(
        default=None,
        description="The session whose images are drawn again, once per verdict that says so; it continues under the "
        "settings that it was opened with.",
    )
    indices: list[Annotated[int, Field(ge=0, lt=LARGEST)]] | None = Field(
        default=None, max_length=1000, description="With `retries`: all images that are drawn again."
    )


class SteerAttention(_Message):
    """The steering of one image in the attention over its prompt (NAG, arXiv 2505.21179)."""

    phi: float
    tau: float
    alpha: float
    parts: list[str] = Field(description="Negatives that steer one after the other.")
    mask: float = Field(default=1.0, description="The share of the positions that are steered; 1: all.")


class Steer(_Message):
    """The steering of one image from the next step on."""

    index: int
    negative: str | None
    scale: float | None = Field(
        description="Scale of the separate term, which attention may have beside it; null without that term."
    )
    mode: GuidanceMode
    attention: SteerAttention | None = Field(None, description="In mode attention; only to hosts that can.")
    action: Literal["none", "steer"]
    preview: Literal["withhold", "blur", "allow"] = Field(
        "withhold", description="How much of the unfinished image the host may show from now on."
    )


class Opened(_Message):
    """Instructions for the host of a new session."""

    session: str
    due: list[int] | None = Field(description="Steps to query at, from 0; null if the steps are unknown.")
    due_progress: list[float] = Field(description="The same as fractions of the run.")
    policy: str = Field(description="Name of the policy in force.")
    on_failure: Literal["closed", "open", "last"]
    deadline_ms: int | None = Field(description="How long an answer may take; null for no limit.")
    user_previews: Literal["withhold", "blur", "allow"] = Field(
        description="How much of unfinished images the host may show."
    )
    mode: Literal["enforce", "shadow"]
    guidance: GuidanceMode = Field(description="How a negative enters the guidance.")
    digest: str = Field(description="Digest of the policy.")
    final: bool = Field(description="Whether the finished images are looked at.")
    skip_similar: float | None = Field(description="Similarity from which on a look may be skipped.")
    vocabulary: list[str] = Field(description="Every word or phrase that may be injected.")
    idle_s: float = Field(description="Seconds without a request after which the session expires.")
    inputs: bool = Field(
        default=False,
        description="Whether to show the request's own pictures, if any, before the first step; only if the host can.",
    )
    retries: int = Field(
        default=0, description="How often an image may have to be drawn again; more than 0 only if the host can."
    )
    negatives: list[Steer] = Field(
        default=[], description="Steering of images that are drawn again, from the first step on."
    )


class Picture(_Message):
    """One image as the host sees it now."""

    index: Annotated[int, Field(ge=0, lt=LARGEST)]
    data: str = Field(description="data:image/jpeg;base64,… or data:image/png;base64,…")


class PreviewPicture(Picture):
    """The prediction of one image."""

    similarity: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Cosine of the latents with the prediction of the last look."
    )


class InputsMessage(_Message):
    """The pictures that the request brought: to edit, to inpaint, to start from. Numbered from 0, in any order."""

    images: list[Picture] = Field(min_length=1, max_length=1000)


class InputVerdict(_Message):
    """The verdict on a request for one of its pictures."""

    index: int
    action: Literal["pass", "block"] = Field(description="block: the session is over; make nothing.")


class InputVerdicts(_Message):
    """The verdicts on a request for all of its pictures."""

    images: list[InputVerdict]


class QueryMessage(_Message):
    """A query about the predictions at a step."""

    step: Annotated[int, Field(ge=0, le=LARGEST)]
    progress: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Fraction of the run that is done; needed if the steps are unknown."
    )
    sigma: Finite | None = None
    images: list[PreviewPicture] = Field(max_length=1000)
    effective: bool = Field(default=True, description="Whether a negative can take effect at the steps that follow.")
    used: Used | None = Field(default=None, description=USED)
    since: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="If the steps are unknown: the fraction of the run that was done one step before."
    )
    failed: bool | None = Field(
        default=None,
        description="Whether the host tried to query at the due steps since its last query, and failed: it could not "
        "make the picture, or got no answer.",
    )
    ended: bool | None = Field(
        default=None, description="Whether the run has ended here, so that no query comes for later due steps."
    )


class AnswerMessage(_Message):
    """The steering of every image from the next step on."""

    images: list[Steer]
    answered: bool = Field(description="false: the look failed; query again at the next step.")


class Finish(_Message):
    """The finished images."""

    images: list[Picture] = Field(max_length=1000)
    used: Used | None = Field(default=None, description=USED)


class Verdict(_Message):
    """The verdict on one image."""

    index: int
    decision: Outcome
    action: Literal["pass", "blur", "retry", "block"] = Field(
        description="retry: draw it again, in a session that `retries` this one; only if the host can."
    )
    receipt: str | None = Field(description="Signed receipt, if the service has a key; null for `retry`.")
    why: str
    code: str = Field("", description="The outcome as a short word, for programs.")
    message: str = Field("", description="Text that a person reads in place of a withheld image.")
    otherwise: Literal["pass", "blur", "block"] | None = Field(
        None, description="With `retry`: the action, in line with `decision`, if the image is not drawn again."
    )
    earlier: bool = Field(
        default=False,
        description="The verdict is on the picture of the previous attempt: deliver that one, and never the new one.",
    )


class Verdicts(_Message):
    """The verdicts on all images."""

    images: list[Verdict]


class PolicyInForce(_Message):
    """The policy that a session of this token would be opened under now."""

    policy: str = Field(description="Name of the policy.")
    revision: str
    digest: str
    mode: Literal["enforce", "shadow"]
    backend: str = Field(default="", description="Digest of the name and the revision of the model that answers.")


class ProblemDocument(BaseModel):
    """An error document (RFC 9457)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str = ""
