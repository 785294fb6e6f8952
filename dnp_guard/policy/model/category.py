"""Categories and rules: what to look for, which negative prompt to inject, and how to react to a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from dnp_guard.policy.model.calibration import Calibration  # noqa: TC001 (pydantic reads it when it runs)
from dnp_guard.policy.model.excuses import Excuses  # noqa: TC001 (pydantic reads it when it runs)
from dnp_guard.policy.model.placeholders import placeholders, render
from dnp_guard.policy.model.scalars import Flag, Identifier, PolicyModel, Probability, Scale, Share, Text
from dnp_guard.policy.model.sections import CategoryQueries  # noqa: TC001 (pydantic reads it when it runs)
from dnp_guard.policy.model.thresholds import StepRange, Threshold
from dnp_guard.types import Action

AnyAction = Literal[Action.MONITOR, Action.STEER, Action.BLUR, Action.BLOCK]
FinalAction = Literal[Action.MONITOR, Action.BLUR, Action.RETRY, Action.BLOCK]
DEFAULT_THRESHOLD = 0.5


class Severity(StrEnum):
    """How bad a category is, mildest first; it scales the strength of the negative and breaks ties, nothing else."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def weight(self) -> float:
        """The factor on the strength of the negative: 0.25, 0.5, 0.75 or 1."""
        return (list(Severity).index(self) + 1) / len(Severity)


def _default_in_words(schema: dict[str, Any]) -> None:
    """Remove the default from a key's JSON Schema if it depends on other keys; the description states it."""
    del schema["default"]


def _at_the_end(threshold: Any) -> Any:
    """Return the threshold at the end of a run from a value that is not validated yet; the default if there is none."""
    if not isinstance(threshold, list | tuple):
        return threshold
    last = threshold[-1] if threshold else None
    if isinstance(last, StepRange):
        return last.value
    return last.get("value", DEFAULT_THRESHOLD) if isinstance(last, Mapping) else DEFAULT_THRESHOLD


class CategoryGuidance(PolicyModel):
    """The guidance settings that a category has in place of the policy's."""

    scale: Scale = Field(description="Scale of this category's negative, in place of the policy's.", examples=[20])


class Taxonomy(PolicyModel):
    """The place of a category in a published list of hazards."""

    name: Text = Field(description="Name of the list, such as AILuminate, LlavaGuard or DSA.", examples=["AILuminate"])
    id: Text = Field(description="Id of the entry in the list.", examples=["ssh"])


class Category(PolicyModel):
    """One thing that the policy looks for, such as nudity.

    The action `steer` needs a `negative`. `blur` and `block` also steer during denoising if there is a `negative`;
    without one they act only on the finished image.
    """

    id: Identifier = Field(description="Short name, used in rules, records and metrics.", examples=["nudity"])
    title: Text = Field(
        default="",
        description="Name shown to people. Omitted: made from the id.",
        examples=["Nudity"],
    )
    definition: Text = Field(
        default="",
        description="Scope of the category, in one sentence. Omitted: the title.",
        examples=["Exposed genitals, buttocks or female breasts."],
    )
    look_for: tuple[Text, ...] = Field(
        default=(),
        max_length=200,
        description="Terms to ask about, one question per term. Omitted: the title is the only term.",
        examples=[["exposed genitals", "exposed buttocks"]],
    )
    allowed: Excuses = Field(
        default=(),
        description="Cases that excuse a finding; the model is asked about them only after a finding. Either cases by "
        "term, or one list for every term of the category.",
        examples=[{"exposed breasts": ["a classical sculpture"]}],
    )
    negative: tuple[Text, ...] = Field(
        default=(),
        max_length=200,
        description="The only words that may be injected. ${found} is replaced by every term that was found.",
        examples=[["nudity", "${found}"]],
    )
    threshold: Threshold = Field(
        default=DEFAULT_THRESHOLD,
        description="A term is found at or above this probability. Or a list of thresholds for ranges of the run, from "
        "0 to 1: `[{from: 0, to: 0.3, value: 0.7}, {from: 0.3, to: 1, value: 0.5}]`.",
        examples=[0.5],
    )
    calibration: Calibration = Field(
        default=None,
        description="A file written by `dnp-guard vlm calibrate`, in this folder or below it. It supplies the "
        "`threshold` if the category has none, and only the model that it was measured on may be used.",
        examples=["calibration.json"],
    )
    allowed_threshold: Probability = Field(
        default=0.8, description="An `allowed` case excuses a finding at or above this probability.", examples=[0.8]
    )
    severity: Literal[Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL] = Field(
        default=Severity.MEDIUM, description="How bad it is; scales the strength and breaks ties.", examples=["high"]
    )
    action: AnyAction = Field(
        default=Action.STEER,
        description="Response to a finding during denoising. Omitted: `steer`, or `block` for a sensitive category.",
        examples=["steer"],
        json_schema_extra=_default_in_words,
    )
    still_present: FinalAction | None = Field(
        default=None,
        description="Response to a finding in the finished image, whether or not it was found earlier. Omitted: "
        "`block`. `retry`: generate the image again as `retries` says, unless another category blocks it. An error "
        "with `queries: {final: false}`.",
        examples=["block"],
    )
    final_threshold: Probability = Field(
        default=DEFAULT_THRESHOLD,
        description="Threshold of the final look. Omitted: `threshold`, or the value of its last range.",
        examples=[0.5],
    )
    more_than_input: Share | None = Field(
        default=None,
        description="A term is found only if its probability is at least this much higher than in the request's own "
        "picture, or than in the lowest of several pictures. A picture without an answer has probability 0. Not "
        "permitted with `severity: critical` or `sensitive`.",
        examples=[0.2],
    )
    sensitive: Flag = Field(
        default=False,
        description="Always block and fail closed; never shadow, excuse, store or show a finding; local models only.",
        examples=[False],
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce",
        description="`shadow` records what this category would do, but does not act.",
        examples=["shadow"],
    )
    taxonomy: Taxonomy | None = Field(
        default=None,
        description="Place of the category in a published list of hazards, for comparisons.",
        examples=[{"name": "AILuminate", "id": "ssh"}],
    )
    queries: CategoryQueries | None = Field(
        default=None,
        description="When to ask about this category. Omitted: at the policy's steps.",
        examples=[{"steps": [0.1, 0.5]}],
    )
    guidance: CategoryGuidance | None = Field(
        default=None, description="This category's own guidance. Omitted: the policy's.", examples=[{"scale": 20}]
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        name = data.get("id")
        title = data.get(
            "title", name.replace("_", " ").replace("-", " ").capitalize() if isinstance(name, str) else ""
        )
        defaults = {
            "title": title,
            "definition": title,
            "final_threshold": _at_the_end(data.get("threshold", DEFAULT_THRESHOLD)),
            "action": Action.BLOCK if data.get("sensitive") is True else Action.STEER,
        }
        return {**defaults, **data}

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms to ask about: ``look_for``, or the title if there are none."""
        return self.look_for or (self.title,)

    @property
    def cases(self) -> tuple[str, ...]:
        """Every case that excuses a term, without repeats, in policy order."""
        return tuple(dict.fromkeys(case for term in self.terms for case in self.excuses(term)))

    def excuses(self, term: str) -> tuple[str, ...]:
        """Return the cases that excuse one term."""
        return self.allowed.get(term, ()) if isinstance(self.allowed, Mapping) else self.allowed

    def words(self, found: Sequence[str]) -> tuple[str, ...]:
        """Return the words to inject as a negative prompt, without repeats, in policy order.

        Args:
            found: the terms that were found, in policy order. An entry of ``negative`` with the placeholder
                ``${found}`` gives one phrase per term.
        """
        return tuple(
            dict.fromkeys(
                render(entry, found=term)
                for entry in self.negative
                for term in (found if placeholders(entry) else ("",))
            )
        )


class Rule(PolicyModel):
    """The response to several categories found in one image."""

    all: tuple[Identifier, ...] = Field(
        min_length=1,
        max_length=100,
        description="Ids of the categories that must all be found.",
        examples=[["apparent_minor", "nudity"]],
    )
    action: AnyAction = Field(description="Response when all are found.", examples=["block"])
