"""The messages between a host and the guard service, version 1; both sides use these classes.

A host is a program that draws images, such as A1111. An unknown key is an error, so that a misspelt request for a
stricter policy is not lost.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dnp_guard.types import GuidanceMode, Outcome

VERSION: Final = 1
FEATURES: Final = ("attention", "attention_shown", "ended", "inputs", "policy", "retry", "subject", "unasked")
"""Newer features of the protocol, as ``/readyz`` lists them; a host uses only those that the service lists."""
LARGEST: Final = 1_000_000

Finite = Annotated[float, Field(allow_inf_nan=False)]
Line = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Used = Literal["attention", "separate"]
USED: Final = (
    "How the host steered. `separate`: it could not steer in attention space, so the session continues with `separate`."
)


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Host(_Message):
    """The program that draws the images; an audit record names it as ``host{name, version, target}``."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Name of the host.", examples=["a1111"]
    )
    version: Line = Field(default="", examples=["1.10.1"])
    target: Line = Field(default="", description="Guarded part of the host.", examples=["txt2img"])


class Run(_Message):
    """Settings of the sampler's run; they serve the audit record only."""

    seed: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    scheduler: Line | None = None
    guidance_scale: Finite | None = None
    size: tuple[Count, Count] | None = Field(default=None, description="Width and height.")


class Open(_Message):
    """The message that opens a session: a generation is about to start."""

    protocol: Literal[1]
    host: Host
    prompts: list[str] = Field(
        default=[], max_length=1000, description="For the audit record, which keeps them in the form the policy sets."
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
        default=None,
        description="Person for whom the images are drawn. The record keeps a keyed hash, by which it can be erased.",
    )
    can: list[Line] | None = Field(
        default=None,
        max_length=100,
        description="Abilities of the host, named as in the `features` of `/readyz`; other names are ignored. "
        "`inputs`: it can show the request's own pictures; `attention`: it reaches the attention of its denoiser; "
        "`attention_shown`: steering in attention was shown to work for this model; `retry`: it can draw images of a "
        "batch again from their seed, and heeds `earlier`; `unasked`: it knows this outcome, of an image in shadow "
        "mode for which no query was answered; other hosts get `failed_open`.",
    )
    retries: Line | None = Field(
        default=None,
        description="Session whose images are drawn again: one opening message per final answer with the verdict "
        "`retry`. The settings that the session was opened with stay in force.",
    )
    indices: list[Annotated[int, Field(ge=0, lt=LARGEST)]] | None = Field(
        default=None, max_length=1000, description="With `retries`: all images that are drawn again."
    )


class SteerAttention(_Message):
    """How to steer one image in the attention over its prompt: normalised attention guidance, arXiv 2505.21179."""

    phi: float
    tau: float
    alpha: float
    parts: list[str] = Field(description="Negative prompts, applied one after the other.")
    mask: float = Field(default=1.0, description="Fraction of the positions that are steered; 1: all.")


class Steer(_Message):
    """How to steer one image from the next step on."""

    index: int
    negative: str | None
    scale: float | None = Field(
        description="Scale of separate guidance, which mode `attention` can use in addition; null if there is none."
    )
    mode: GuidanceMode
    attention: SteerAttention | None = Field(
        None, description="In mode `attention`; only hosts with this ability get it."
    )
    action: Literal["none", "steer"]
    preview: Literal["withhold", "blur", "allow"] = Field(
        "withhold", description="How much of the unfinished image the host may show from now on."
    )


class Opened(_Message):
    """The answer to the message that opens a session: instructions for the host."""

    session: str
    due: list[int] | None = Field(description="Steps to query at, from 0; null if the steps are unknown.")
    due_progress: list[float] = Field(description="The steps to query at, as fractions of the run.")
    policy: str = Field(description="Name of the policy in force.")
    on_failure: Literal["closed", "open", "last"]
    deadline_ms: int | None = Field(description="How long an answer may take; null for no limit.")
    user_previews: Literal["withhold", "blur", "allow"] = Field(
        description="How much of unfinished images the host may show."
    )
    mode: Literal["enforce", "shadow"]
    guidance: GuidanceMode = Field(description="How a negative enters the guidance.")
    digest: str = Field(description="Digest of the policy.")
    final: bool = Field(description="Whether the finished images are checked, too.")
    skip_similar: float | None = Field(description="Cosine similarity from which on a query is skipped.")
    vocabulary: list[str] = Field(description="Every word or phrase that may be injected.")
    idle_s: float = Field(description="Seconds without a request after which the session expires.")
    inputs: bool = Field(
        default=False,
        description="Whether to show the request's own pictures, if it has any, before the first step; false for hosts "
        "without the ability `inputs`.",
    )
    retries: int = Field(
        default=0, description="Most verdicts `retry` that an image can get; 0 for hosts without this ability."
    )
    negatives: list[Steer] = Field(
        default=[], description="How to steer images that are drawn again, from the first step on."
    )


class Picture(_Message):
    """One picture that the host shows to the service."""

    index: Annotated[int, Field(ge=0, lt=LARGEST)]
    data: str = Field(description="data:image/jpeg;base64,… or data:image/png;base64,…")


class PreviewPicture(Picture):
    """The picture that the current step predicts for one unfinished image (x̂0, decoded)."""

    similarity: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Cosine similarity of its latents to those that were predicted at the last query."
    )


class InputsMessage(_Message):
    """The pictures that the user's request brought, to edit, inpaint or start from; numbered from 0, in any order."""

    images: list[Picture] = Field(min_length=1, max_length=1000)


class InputVerdict(_Message):
    """The verdict on one picture that the user's request brought."""

    index: int
    action: Literal["pass", "block"] = Field(description="block: the session is over; draw nothing.")


class InputVerdicts(_Message):
    """The verdicts on all pictures that the user's request brought."""

    images: list[InputVerdict]


class QueryMessage(_Message):
    """A query about the pictures that a denoising step predicts."""

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
    """The answer to a query: how to steer every image from the next step on."""

    images: list[Steer]
    answered: bool = Field(description="false: the query failed; query again at the next step.")


class Finish(_Message):
    """The message that shows the finished images, to get the verdicts on them."""

    images: list[Picture] = Field(max_length=1000)
    used: Used | None = Field(default=None, description=USED)


class Verdict(_Message):
    """The verdict on one finished image."""

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
    """The verdicts on all finished images."""

    images: list[Verdict]


class PolicyInForce(_Message):
    """The policy that would be in force if a host with this token opened a session now."""

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
