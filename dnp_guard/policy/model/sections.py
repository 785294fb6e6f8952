"""The sections of a policy that concern every category."""

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
    """The query steps that a category has in place of the policy's."""

    steps: tuple[StepNumber, ...] = Field(
        max_length=1_000,
        description="Steps at which to ask about this category, in place of the policy's.",
        examples=[[0.1, 0.5]],
    )
    of: Count | None = Field(
        default=None,
        description="Number of steps of a run, if `steps` are whole numbers. Omitted: `steps` are fractions.",
        examples=[50],
    )


class BackOff(PolicyModel):
    """When to query an image less often."""

    factor: Factor = Field(
        default=3.0,
        description="After a quiet query, the next is due when the run has progressed this many times as far.",
        examples=[3],
    )
    below: Probability = Field(
        default=0.2,
        description="A query is quiet if nothing was found yet and no probability reaches this part of a threshold.",
        examples=[0.2],
    )
    steered: Factor | None = Field(
        default=None,
        description="After a query of an image that is being steered, the next is due when the run has progressed this "
        "many times as far: it only has to tell whether the finding is gone. Omitted: every step of the list.",
        examples=[2],
    )


class SkipProbe(PolicyModel):
    """When a latent probe, a small network that predicts findings, makes a query unnecessary."""

    max_miss: Miss = Field(
        description="Share of the queries with a finding that may be skipped. The final look is never skipped.",
        examples=[0.01],
    )


class Queries(PolicyModel):
    """When to query the vision-language model."""

    steps: tuple[StepNumber, ...] = Field(
        default=DEFAULT_STEPS,
        max_length=1_000,
        description="Steps at which to query, rising: fractions of the run, or with `of` whole steps from 0.",
        examples=[[0.1, 0.2, 0.4, 0.8]],
    )
    of: Count | None = Field(
        default=None,
        description="Number of steps of a run, if `steps` are whole numbers. Omitted: `steps` are fractions.",
        examples=[50],
    )
    sigmas: tuple[Share, ...] | None = Field(
        default=None,
        max_length=1_000,
        description="Noise levels, falling: also query at the first step whose noise is at or below a level. A level "
        "is the share σ/(α+σ) of noise in the latents, 1 for pure noise; under flow matching it is σ. If a host does "
        "not report its noise, the share is assumed to fall evenly over the run. The last step has the final look.",
        examples=[[0.9, 0.7, 0.4]],
    )
    final: OfFinal = Field(
        default=True,
        description="Also query the finished image; with `{views: …}`, several pictures of it in one query.",
        examples=[True],
    )
    skip_similar: Probability | None = Field(
        default=None,
        description="Skip a query if the preview is this similar to the last one queried. Omitted: never.",
        examples=[0.95],
    )
    deadline_ms: Count | None = Field(
        default=None,
        description="Longest wait of a step for an answer, in milliseconds. Omitted: no limit.",
        examples=[2000],
    )
    wait: Flag | None = Field(
        default=None,
        description="`false`: denoising continues while the model answers, and a verdict steers from the step at which "
        "it arrives; only the final look is awaited. `true`, the default: every answer is awaited, and the same call "
        "gives the same image again.",
        examples=[True],
    )
    budget_ms: Count | None = Field(
        default=None,
        description="Longest total wait of a generation for answers, in milliseconds; after it, only the final look "
        "remains. Omitted: no limit.",
        examples=[3000],
    )
    back_off: BackOff | None = Field(
        default=None,
        description="Query an image less often while no term is near its threshold; a step at which a sensitive "
        "category is due is never left out. Omitted: every step of the list.",
        examples=[{"factor": 3, "below": 0.2}],
    )
    skip_probe: SkipProbe | None = Field(
        default=None,
        description="Skip a query if nothing is being steered and a latent probe, trained with `dnp-guard distill`, is "
        "sure enough that the query would find nothing. Omitted: never.",
        examples=[{"max_miss": 0.01}],
    )
    max_questions: Count = Field(
        default=2000,
        description="Most questions per generation; one that would need more is refused before it starts.",
        examples=[2000],
    )

    @property
    def views(self) -> tuple[View, ...]:
        """The further pictures of a finished image, such as its mirror image, that are put into its query."""
        return tuple(dict.fromkeys(self.final.views)) if isinstance(self.final, FinalLook) else ()

    @property
    def final_pictures(self) -> int:
        """Number of pictures of a finished image in its query; 0 if finished images are not queried."""
        return self.final.pictures if isinstance(self.final, FinalLook) else int(self.final)


class Inputs(PolicyModel):
    """The pictures that a request contains: to edit, to inpaint, to start a video from."""

    query: Flag = Field(
        default=True, description="Query them before the first step, as finished images.", examples=[True]
    )
    action: Literal[Action.MONITOR, Action.BLOCK] = Field(
        default=Action.MONITOR,
        description="`block` refuses a request with a picture that would be blurred or blocked as a finished image. A "
        "request with a picture of a sensitive category is refused under `monitor` too.",
        examples=["block"],
    )


class QuestionTemplate(PolicyModel):
    """How to word the questions to the vision-language model."""

    template: Text = Field(
        default="Does this image show ${term}? (${definition})",
        description="Question about one `look_for` term. Placeholders: ${title}, ${definition}, ${term}.",
        examples=["Does this image show ${term}? (${definition})"],
    )
    allowed_template: Text = Field(
        default="Does this image show ${allowed}?",
        description="Question about one `allowed` case. Placeholder: ${allowed}.",
        examples=["Does this image show ${allowed}?"],
    )
    paired: Flag = Field(
        default=False,
        description="Also ask the negation of every question, and apply the stricter answer.",
        examples=[False],
    )
    answer: Literal["probabilities", "text"] = Field(
        default="probabilities",
        description="`text` also accepts a backend that says yes or no without a probability; `probabilities` refuses "
        "such a backend under `mode: enforce`.",
        examples=["probabilities"],
    )


class Attention(PolicyModel):
    """The settings of normalised attention guidance (NAG, arXiv 2505.21179); the paper's by default."""

    phi: Extrapolation = Field(
        default=3.0,
        description="φ, how far to extrapolate the attention over the prompt away from the negative's. 1: not at all.",
        examples=[3],
    )
    tau: Extrapolation = Field(
        default=2.5,
        description="τ, largest norm after extrapolation, as a multiple of the norm before.",
        examples=[2.5],
    )
    alpha: Probability = Field(
        default=0.25,
        description="α, share of the extrapolated attention in the mix, at full strength. 0: none.",
        examples=[0.25],
    )
    mask: Share = Field(
        default=1.0,
        description="Steer only the positions whose attention over the prompt is most like that over the negative: "
        "this share of them. 1: all.",
        examples=[0.7],
    )


class Guidance(PolicyModel):
    """How a negative prompt enters the guidance of the denoiser, and how strongly."""

    mode: GuidanceMode = Field(
        default="separate",
        description="separate: a term of its own after CFG. replace: the words replace the unconditional prompt. "
        "attention: steer in the denoiser's attention over the prompt, which few-step models need. auto: attention if "
        "the host can reach it and it is proven for the model, otherwise separate.",
        examples=["separate"],
    )
    scale: Scale | None = Field(
        default=None,
        description="Scale s of the separate term; 15 by default. An error in `mode: replace`, and in `attention` "
        "without `escalate`.",
        examples=[15],
    )
    attention: Attention | None = Field(
        default=None,
        description="How strongly to steer in attention. An error in `mode: separate` and `replace`.",
        examples=[{"phi": 3, "tau": 2.5, "alpha": 0.25}],
    )
    escalate: Count | None = Field(
        default=None,
        description="Add the separate term to attention after this many answered queries of an image still found what "
        "it is steered away from, or at once if that is several categories. A retry adds the term at its first query. "
        "Omitted: only in a retry. An error in `mode: separate` and `replace`.",
        examples=[1],
    )
    strength: Literal["constant", "severity", "controller"] | None = Field(
        default=None,
        description="Rule for the strength; `severity` by default. `constant`: always the full scale. "
        "`severity`: from a quarter of the scale for low to all of it for critical. `controller`: severity, how sure "
        "the answer is, and whether the finding fades; never over the scale. An error in `mode: replace`.",
        examples=["severity"],
    )
    hold: Hold = Field(
        default=2,
        description="A negative stays for this many answered queries that no longer find its category.",
        examples=[2],
    )
    mask: Share | None = Field(
        default=None,
        description="Share of the picture to steer: the part where the negative differs most from the unconditional. "
        "Omitted: all of it. An error in `mode: replace`, and in `attention` without `escalate`.",
        examples=[0.5],
    )
    reuse: Count | None = Field(
        default=None,
        description="Evaluate the negative only at every k-th step, and reuse its prediction for the steps between. "
        "Omitted: evaluate at every step. An error in `mode: replace`.",
        examples=[2],
    )
    batched: Flag | None = Field(
        default=None,
        description="Evaluate the negatives in the host's own batch, if the host evaluates both branches at once: "
        "cheaper, but the other images of the batch are no longer bit-identical. An error in `mode: replace` and "
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
    """How to decode the predicted clean image, and who sees the picture."""

    method: Literal["auto", "vae", "tiny", "linear"] = Field(
        default="auto", description="The decoder: the model's own VAE, a tiny one, or a linear map.", examples=["auto"]
    )
    user_previews: Literal["withhold", "blur", "allow"] = Field(
        default="withhold",
        description="Treatment of the host's own previews during a generation.",
        examples=["withhold"],
    )


class Audit(PolicyModel):
    """The contents of the audit record."""

    required: Flag = Field(
        default=False,
        description="Treat a generation whose record cannot be written as a failure of the guard.",
        examples=[False],
    )
    prompt: Literal["hmac", "redacted", "plain", "none"] = Field(
        default="hmac",
        description="Form of the prompt in the record: keyed digest, lengths of its words, plain text, or nothing.",
        examples=["hmac"],
    )
    previews: Literal["never", "found", "sampled"] = Field(
        default="never",
        description="Which pictures to keep: none, those with findings, or also the share `sample` of the finished "
        "images without findings. They are small and blurred, or with a picture key recognisable and encrypted.",
        examples=["never"],
    )
    sample: Probability | None = Field(
        default=None,
        description="Share of the finished images without findings that `sampled` keeps. Omitted: 0.01.",
        examples=[0.01],
    )
    retention_days: Count = Field(default=90, description="Days to keep records.", examples=[90])


class Vlm(PolicyModel):
    """Which vision-language backends a guard may use with this policy."""

    allow: tuple[Address, ...] = Field(
        min_length=1,
        description="`local`, or addresses that images may be sent to.",
        examples=[["local"]],
    )
