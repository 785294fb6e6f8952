"""The parts of a policy that are not about one category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from dnp_guard.policy.model.ends import FinalLook, OfFinal, View
from dnp_guard.policy.model.scalars import (
    Address,
    Count,
    Extrapolation,
    Factor,
    Flag,
    Hold,
    Miss,
    PolicyModel,
    Probability,
    Scale,
    Share,
    StepNumber,
    Text,
)
from dnp_guard.types import Action, GuidanceMode

DEFAULT_STEPS = (0.10, 0.12, 0.14, 0.18, 0.24, 0.32, 0.42, 0.54, 0.68, 0.84)
DEFAULT_SCALE = 15.0
DEFAULT_STRENGTH: Literal["severity"] = "severity"


class CategoryQueries(PolicyModel):
    """A category's own steps."""

    steps: tuple[StepNumber, ...] = Field(
        max_length=1_000,
        description="Steps to ask about this category at, in place of the policy's.",
        examples=[[0.1, 0.5]],
    )
    of: Count | None = Field(
        default=None,
        description="The number of steps that whole numbers in `steps` count within. Omitted: `steps` are fractions.",
        examples=[50],
    )


class BackOff(PolicyModel):
    """When looks become rarer."""

    factor: Factor = Field(
        default=3.0,
        description="After a quiet look at some part of the run, the next is due at this many times that part.",
        examples=[3],
    )
    below: Probability = Field(
        default=0.2,
        description="A look is quiet where nothing was found yet and no probability comes to this part of a threshold.",
        examples=[0.2],
    )
    steered: Factor | None = Field(
        default=None,
        description="After a look at an image whose negative is in force, the next is due at this many times that "
        "part of the run: only whether it is gone is of interest then. Omitted: every step of the list.",
        examples=[2],
    )


class SkipProbe(PolicyModel):
    """Looks that a latent probe says are not worth a question."""

    max_miss: Miss = Field(
        description="Of the looks that would find something, the share that may be skipped. The final look never is.",
        examples=[0.01],
    )


class Queries(PolicyModel):
    """When the vision-language model is asked."""

    steps: tuple[StepNumber, ...] = Field(
        default=DEFAULT_STEPS,
        max_length=1_000,
        description="Steps to ask at, rising: fractions of the run, or whole steps counted from 0 with `of`.",
        examples=[[0.1, 0.2, 0.4, 0.8]],
    )
    of: Count | None = Field(
        default=None,
        description="The number of steps that whole numbers in `steps` count within. Omitted: `steps` are fractions.",
        examples=[50],
    )
    sigmas: tuple[Share, ...] | None = Field(
        default=None,
        max_length=1_000,
        description="Also ask at the first step whose noise is at or under each of these, falling: the share "
        "σ/(α+σ) of noise in the latents, 1 for nothing else; under flow matching σ itself. Where a host does not tell "
        "its noise, the share is taken to fall evenly over the run. The last step is left to the final look.",
        examples=[[0.9, 0.7, 0.4]],
    )
    final: OfFinal = Field(
        default=True,
        description="Also look at the finished image; with `{views: …}` at several pictures of it at once.",
        examples=[True],
    )
    skip_similar: Probability | None = Field(
        default=None,
        description="Skip a query when the preview is this similar to the last one asked about. Omitted: never.",
        examples=[0.95],
    )
    deadline_ms: Count | None = Field(
        default=None,
        description="How long a step may wait for an answer, in milliseconds. Omitted: it waits for the answer.",
        examples=[2000],
    )
    wait: Flag | None = Field(
        default=None,
        description="`false`: denoising goes on while the model answers, and a verdict steers from the step at which "
        "it arrives; only the final look is waited for. `true` when omitted: each answer is waited for, and the "
        "same call gives the same image again.",
        examples=[True],
    )
    budget_ms: Count | None = Field(
        default=None,
        description="No more looks while the image is made once a generation has waited this long for answers, in "
        "milliseconds. Omitted: as long as it takes.",
        examples=[3000],
    )
    back_off: BackOff | None = Field(
        default=None,
        description="While nothing in an image is near its threshold, look at it less often, but at every step where "
        "a sensitive category is due. Omitted: every step of the list.",
        examples=[{"factor": 3, "below": 0.2}],
    )
    skip_probe: SkipProbe | None = Field(
        default=None,
        description="Skip a query where a latent probe, trained with `dnp-guard distill`, is sure enough that nothing "
        "would be found and nothing is steered. Omitted: never.",
        examples=[{"max_miss": 0.01}],
    )
    max_questions: Count = Field(
        default=2000,
        description="A generation that would need more questions than this is refused before it starts.",
        examples=[2000],
    )

    @property
    def views(self) -> tuple[View, ...]:
        """The pictures of a finished image that are asked about beside it."""
        return tuple(dict.fromkeys(self.final.views)) if isinstance(self.final, FinalLook) else ()

    @property
    def final_pictures(self) -> int:
        """How many pictures of each finished image are asked about; 0 where it is not looked at."""
        return self.final.pictures if isinstance(self.final, FinalLook) else int(self.final)


class Inputs(PolicyModel):
    """The pictures that a request brings: to edit, to inpaint, to start a video from."""

    query: Flag = Field(
        default=True, description="Ask about them before the first step, as about a finished image.", examples=[True]
    )
    action: Literal[Action.MONITOR, Action.BLOCK] = Field(
        default=Action.MONITOR,
        description="`block` refuses a request with a picture that would be blurred or blocked as a finished image. "
        "One that shows a sensitive category is refused under `monitor` too.",
        examples=["block"],
    )


class QuestionTemplate(PolicyModel):
    """How the vision-language model is asked."""

    template: Text = Field(
        default="Does this image show ${term}? (${definition})",
        description="The question for one `look_for` term. Placeholders: ${title}, ${definition}, ${term}.",
        examples=["Does this image show ${term}? (${definition})"],
    )
    allowed_template: Text = Field(
        default="Does this image show ${allowed}?",
        description="The question for one `allowed` case. Placeholder: ${allowed}.",
        examples=["Does this image show ${allowed}?"],
    )
    paired: Flag = Field(
        default=False,
        description="Also ask the negation of every question, and take the stricter answer.",
        examples=[False],
    )
    answer: Literal["probabilities", "text"] = Field(
        default="probabilities",
        description="`text` also accepts a backend that says yes or no and gives no probability; under "
        "`mode: enforce` such a backend is refused otherwise.",
        examples=["probabilities"],
    )


class Attention(PolicyModel):
    """How normalised attention guidance (NAG, arXiv 2505.21179) steers; the paper's settings when omitted."""

    phi: Extrapolation = Field(
        default=3.0,
        description="φ, how far the attention over the prompt is extrapolated away from the negative's. 1: not at all.",
        examples=[3],
    )
    tau: Extrapolation = Field(
        default=2.5,
        description="τ, how long what was extrapolated may be, as a multiple of what it was before.",
        examples=[2.5],
    )
    alpha: Probability = Field(
        default=0.25,
        description="α, how much of it is mixed in, at full strength. 0: nothing.",
        examples=[0.25],
    )


class Guidance(PolicyModel):
    """How a negative enters the guidance."""

    mode: GuidanceMode = Field(
        default="separate",
        description="separate: a term of its own after CFG. replace: the words take the unconditional slot. attention: "
        "in the denoiser's attention over the prompt, which few-step models need. auto: attention where the host can "
        "reach it and it was shown to work for the model, otherwise separate.",
        examples=["separate"],
    )
    scale: Scale | None = Field(
        default=None,
        description="Scale s of the separate term; 15 when omitted. An error in `mode: replace`, and in `attention` "
        "without `escalate`.",
        examples=[15],
    )
    attention: Attention | None = Field(
        default=None,
        description="How hard the attention is steered. An error in `mode: separate` and `replace`.",
        examples=[{"phi": 3, "tau": 2.5, "alpha": 0.25}],
    )
    escalate: Count | None = Field(
        default=None,
        description="Add the separate term to attention for an image once this many answered queries still saw what "
        "it is steered away from, and at once where that is several categories. Omitted: only in an image that is made "
        "again. An error in `mode: separate` and `replace`.",
        examples=[1],
    )
    strength: Literal["constant", "severity", "controller"] | None = Field(
        default=None,
        description="What the scale depends on; `severity` when omitted. `constant`: nothing. `severity`: a quarter of "
        "it for a low severity to all of it for a critical one. `controller`: severity, how sure a look is, and "
        "whether what is seen fades; never over the scale. An error in `mode: replace`.",
        examples=["severity"],
    )
    hold: Hold = Field(
        default=2,
        description="A negative stays through this many answered queries that no longer see its category.",
        examples=[2],
    )
    mask: Share | None = Field(
        default=None,
        description="Steer only where the negative differs most from the unconditional: this share of the picture. "
        "Omitted: everywhere. An error in `mode: replace`, and in `attention` without `escalate`.",
        examples=[0.5],
    )
    reuse: Count | None = Field(
        default=None,
        description="Evaluate the negative at every k-th step only, and use what it gave for the steps between. "
        "Omitted: at every step. An error in `mode: replace`.",
        examples=[2],
    )
    batched: Flag | None = Field(
        default=None,
        description="Evaluate the negatives together with the host's own batch, where it evaluates both branches at "
        "once: cheaper, but the other images of the batch are no longer bit-identical. An error in `mode: replace` and "
        "`attention`.",
        examples=[True],
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        mode = data.get("mode", "separate") if isinstance(data, Mapping) else "replace"
        if mode == "replace":
            return data
        filled: dict[str, Any] = {"strength": DEFAULT_STRENGTH}
        if mode != "attention" or data.get("escalate") is not None:
            filled["scale"] = DEFAULT_SCALE
        if mode in {"attention", "auto"}:
            filled["attention"] = {}
        return {**filled, **data}


class Preview(PolicyModel):
    """How the predicted clean image becomes a picture, and who sees it."""

    method: Literal["auto", "vae", "tiny", "linear"] = Field(
        default="auto", description="The decoder: the model's own VAE, a tiny one, or a linear map.", examples=["auto"]
    )
    user_previews: Literal["withhold", "blur", "allow"] = Field(
        default="withhold",
        description="What the host's own previews show meanwhile.",
        examples=["withhold"],
    )


class Audit(PolicyModel):
    """What the audit record keeps."""

    required: Flag = Field(
        default=False,
        description="A generation whose record cannot be written is a failure of the guard.",
        examples=[False],
    )
    prompt: Literal["hmac", "redacted", "plain", "none"] = Field(
        default="hmac",
        description="The prompt in the record: a keyed digest, the lengths of its words, the text, or nothing.",
        examples=["hmac"],
    )
    previews: Literal["never", "found", "sampled"] = Field(
        default="never",
        description="Which pictures are kept: none, those of findings, or with them finished images in which nothing "
        "was found, as many as `sample` says. Blurred and small, or with a picture key recognisable and encrypted.",
        examples=["never"],
    )
    sample: Probability | None = Field(
        default=None,
        description="The share of the finished images that `sampled` keeps besides. Omitted: 0.01.",
        examples=[0.01],
    )
    retention_days: Count = Field(default=90, description="How long records are kept.", examples=[90])


class Vlm(PolicyModel):
    """Which vision-language backends a guard may use with this policy."""

    allow: tuple[Address, ...] = Field(
        min_length=1,
        description="`local`, or the address that images may be sent to.",
        examples=[["local"]],
    )
