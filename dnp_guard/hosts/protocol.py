"""What goes between a host and the guard service, version 1; both halves read it here.

An unknown key is an error: a misspelt request to be stricter must not be lost.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dnp_guard.types import GuidanceMode, Outcome

VERSION: Final = 1
FEATURES: Final = ("attention", "attention_shown", "ended", "inputs", "policy", "retry", "subject", "unasked")
"""What is new in the protocol, as ``/readyz`` lists it: a host sends nothing of it to a service that does not."""
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
    """Who asks: ``host{name, version, target}`` of the record."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="Of the host.", examples=["a1111"])
    version: Line = Field(default="", examples=["1.10.1"])
    target: Line = Field(default="", description="What of it is guarded.", examples=["txt2img"])


class Run(_Message):
    """How it is drawn, for the record alone."""

    seed: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    scheduler: Line | None = None
    guidance_scale: Finite | None = None
    size: tuple[Count, Count] | None = Field(default=None, description="Width and height.")


class Open(_Message):
    """A generation is about to start."""

    protocol: Literal[1]
    host: Host
    prompts: list[str] = Field(default=[], max_length=1000, description="For the record, as the policy keeps them.")
    steps: Count | None = Field(default=None, description="Steps this run executes, all passes of it; null if unknown.")
    images: Count = Field(description="Images drawn together.")
    policy: Line | None = Field(default=None, description="Another policy of this token, to be stricter by.")
    region: Line | None = Field(default=None, description="To select from a store of policies.")
    surface: Line | None = Field(default=None, description="Likewise.")
    run: Run = Run()
    subject: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="The person whom it is for; the record keeps a keyed hash of it, for erasure."
    )
    can: list[Line] | None = Field(
        default=None,
        max_length=100,
        description="What the host is able to do, of `features` that `/readyz` lists; others are ignored. `inputs`; "
        "`attention`: it reaches the attention of its denoiser; `attention_shown`: steering there was shown to work "
        "for this model; `retry`: it can draw images of a batch again from their seed, and heeds `earlier`; `unasked`: "
        "it knows this outcome of an image in shadow that no query was answered for, which is `failed_open` otherwise.",
    )
    retries: Line | None = Field(
        default=None,
        description="The session whose images are drawn again, once for each time that a verdict says so; it goes on, "
        "as it was opened.",
    )
    indices: list[Annotated[int, Field(ge=0, lt=LARGEST)]] | None = Field(
        default=None, max_length=1000, description="With `retries`: the images that are drawn again, all of them."
    )


class SteerAttention(_Message):
    """How one image is steered in the attention over its prompt (NAG, arXiv 2505.21179)."""

    phi: float
    tau: float
    alpha: float
    parts: list[str] = Field(description="Negatives that steer one after the other.")
    mask: float = Field(default=1.0, description="The share of the positions that are steered; 1: all.")


class Steer(_Message):
    """What one image is steered away from, from the next step on."""

    index: int
    negative: str | None
    scale: float | None = Field(
        description="Of the separate term, which attention may have beside it; null where there is none."
    )
    mode: GuidanceMode
    attention: SteerAttention | None = Field(None, description="In mode attention; only to hosts that can.")
    action: Literal["none", "steer"]
    preview: Literal["withhold", "blur", "allow"] = Field(
        "withhold", description="What the host may show of the unfinished image from now on."
    )


class Opened(_Message):
    """What the host has to do."""

    session: str
    due: list[int] | None = Field(description="Steps to ask at, from 0; null where the steps are unknown.")
    due_progress: list[float] = Field(description="The same as parts of the run.")
    policy: str = Field(description="Name of the policy in force.")
    on_failure: Literal["closed", "open", "last"]
    deadline_ms: int | None = Field(description="How long an answer may take; null: as long as it takes.")
    user_previews: Literal["withhold", "blur", "allow"] = Field(description="What the host may show meanwhile.")
    mode: Literal["enforce", "shadow"]
    guidance: GuidanceMode = Field(description="How a negative enters the guidance.")
    digest: str = Field(description="Of the policy.")
    final: bool = Field(description="Whether the finished images are looked at.")
    skip_similar: float | None = Field(description="From which similarity on a look may be skipped.")
    vocabulary: list[str] = Field(description="Every word or phrase that may be injected.")
    idle_s: float = Field(description="A session that hears nothing for so many seconds expires.")
    inputs: bool = Field(
        default=False,
        description="Whether the request's own pictures, if it has any, are to be shown before the first step; only "
        "where the host can.",
    )
    retries: int = Field(
        default=0, description="How often an image may have to be drawn again; more than 0 only where the host can."
    )
    negatives: list[Steer] = Field(
        default=[], description="Of images that are drawn again: what is steered away from, from the first step on."
    )


class Picture(_Message):
    """One image as the host sees it now."""

    index: Annotated[int, Field(ge=0, lt=LARGEST)]
    data: str = Field(description="data:image/jpeg;base64,… or data:image/png;base64,…")


class PreviewPicture(Picture):
    """The prediction of one image."""

    similarity: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Cosine with the prediction that was last looked at, of the latents."
    )


class InputsMessage(_Message):
    """The pictures that the request brought: to edit, to inpaint, to start from. Counted from 0, in any order."""

    images: list[Picture] = Field(min_length=1, max_length=1000)


class InputVerdict(_Message):
    """What becomes of the request for one of its pictures."""

    index: int
    action: Literal["pass", "block"] = Field(description="block: the session is over; make nothing.")


class InputVerdicts(_Message):
    """What becomes of the request for each of its pictures."""

    images: list[InputVerdict]


class QueryMessage(_Message):
    """What is being drawn at a step."""

    step: Annotated[int, Field(ge=0, le=LARGEST)]
    progress: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Part of the run that is done; needed where the steps are unknown."
    )
    sigma: Finite | None = None
    images: list[PreviewPicture] = Field(max_length=1000)
    effective: bool = Field(default=True, description="Whether a negative can take effect at the steps that follow.")
    used: Used | None = Field(default=None, description=USED)
    since: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Where the steps are unknown: the part of the run that was done one step before."
    )
    failed: bool | None = Field(
        default=None,
        description="Whether the host tried to ask at the due steps since its last query, and failed: its picture "
        "could not be made, or no answer came.",
    )
    ended: bool | None = Field(
        default=None, description="Whether the run has ended here; no query comes for the due steps that follow."
    )


class AnswerMessage(_Message):
    """What every image is steered away from, from the next step on."""

    images: list[Steer]
    answered: bool = Field(description="false: the look failed; ask again at the next step.")


class Finish(_Message):
    """The finished images."""

    images: list[Picture] = Field(max_length=1000)
    used: Used | None = Field(default=None, description=USED)


class Verdict(_Message):
    """What becomes of one image."""

    index: int
    decision: Outcome
    action: Literal["pass", "blur", "retry", "block"] = Field(
        description="retry: draw it again, in a session that `retries` this one; only where the host can."
    )
    receipt: str | None = Field(description="Signed, where the service has a key; null for `retry`.")
    why: str
    code: str = Field("", description="A short word for what became of the image, for programs.")
    message: str = Field("", description="What a person reads in place of a withheld image.")
    otherwise: Literal["pass", "blur", "block"] | None = Field(
        None, description="With `retry`: what becomes of the image, as `decision` has it, if it is not drawn again."
    )
    earlier: bool = Field(
        default=False,
        description="The verdict is on the picture of the attempt before: deliver that one, and never the new one.",
    )


class Verdicts(_Message):
    """What becomes of every image."""

    images: list[Verdict]


class PolicyInForce(_Message):
    """The policy that a session of this token would be opened under now."""

    policy: str = Field(description="Its name.")
    revision: str
    digest: str
    mode: Literal["enforce", "shadow"]


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str = ""
