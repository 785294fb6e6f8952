"""Categories and rules: what is looked for, what may be injected, and what is done about it."""

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
    """How bad a category is, mildest first; scales the strength and breaks ties, no more."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def weight(self) -> float:
        """The factor on the strength: .25, .5, .75 or 1."""
        return (list(Severity).index(self) + 1) / len(Severity)


def _default_in_words(schema: dict[str, Any]) -> None:
    """Take out a default that depends on other keys; the description says it."""
    del schema["default"]


def _at_the_end(threshold: Any) -> Any:
    """The last range's value of a threshold that is not checked yet; the default of one that has none."""
    if not isinstance(threshold, list | tuple):
        return threshold
    last = threshold[-1] if threshold else None
    if isinstance(last, StepRange):
        return last.value
    return last.get("value", DEFAULT_THRESHOLD) if isinstance(last, Mapping) else DEFAULT_THRESHOLD


class CategoryGuidance(PolicyModel):
    """A category's own guidance."""

    scale: Scale = Field(description="Scale of this category's negative, in place of the policy's.", examples=[20])


class Taxonomy(PolicyModel):
    """Where a category belongs in somebody else's list of hazards."""

    name: Text = Field(description="The list, such as AILuminate, LlavaGuard or DSA.", examples=["AILuminate"])
    id: Text = Field(description="The entry in it.", examples=["ssh"])


class Category(PolicyModel):
    """One thing the policy looks for.

    `blur` and `block` steer too while the image is denoised, as far as there is a `negative`; without one they act at
    the end only. `steer` needs one.
    """

    id: Identifier = Field(description="A short name, used in rules, records and metrics.", examples=["nudity"])
    title: Text = Field(
        default="",
        description="Name for people. Omitted: made from the id.",
        examples=["Nudity"],
    )
    definition: Text = Field(
        default="",
        description="What the category covers, in one sentence. Omitted: the title.",
        examples=["Exposed genitals, buttocks or female breasts."],
    )
    look_for: tuple[Text, ...] = Field(
        default=(),
        max_length=200,
        description="Terms that are asked about one by one. Omitted: the title is.",
        examples=[["exposed genitals", "exposed buttocks"]],
    )
    allowed: Excuses = Field(
        default=(),
        description="Cases that excuse a finding, asked about only after one: for each term its own, or a list for "
        "every term of the category.",
        examples=[{"exposed breasts": ["a classical sculpture"]}],
    )
    negative: tuple[Text, ...] = Field(
        default=(),
        max_length=200,
        description="The only words that may be injected. ${found} stands for each term that was seen.",
        examples=[["nudity", "${found}"]],
    )
    threshold: Threshold = Field(
        default=DEFAULT_THRESHOLD,
        description="Probability at or over which a term counts as seen; or a list of such for ranges of the run, from "
        "0 to 1: `[{from: 0, to: 0.3, value: 0.7}, {from: 0.3, to: 1, value: 0.5}]`.",
        examples=[0.5],
    )
    calibration: Calibration = Field(
        default=None,
        description="A file of `dnp-guard vlm calibrate`, in this folder or below it. It gives the `threshold`, where "
        "none is written beside it, and only the model that it was measured on may be asked.",
        examples=["calibration.json"],
    )
    allowed_threshold: Probability = Field(
        default=0.8, description="Probability at or over which an `allowed` case excuses a finding.", examples=[0.8]
    )
    severity: Literal[Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL] = Field(
        default=Severity.MEDIUM, description="How bad it is; scales the strength and breaks ties.", examples=["high"]
    )
    action: AnyAction = Field(
        default=Action.STEER,
        description="What a finding while denoising leads to. Omitted: `steer`, or `block` for a sensitive category.",
        examples=["steer"],
        json_schema_extra=_default_in_words,
    )
    still_present: FinalAction | None = Field(
        default=None,
        description="What happens when the finished image shows it, seen earlier or not. Omitted: `block`. `retry`: "
        "the image is made again, as `retries` says, where no other category says `block`. An error with "
        "`queries: {final: false}`.",
        examples=["block"],
    )
    final_threshold: Probability = Field(
        default=DEFAULT_THRESHOLD,
        description="The threshold of the final look. Omitted: as `threshold`, its last range's.",
        examples=[0.5],
    )
    more_than_input: Share | None = Field(
        default=None,
        description="Counts as found only where its probability is at least this much higher than in the request's own "
        "picture; of several pictures, than in the lowest. A picture that was not answered about counts as 0. Not "
        "permitted with `severity: critical` or `sensitive`.",
        examples=[0.2],
    )
    sensitive: Flag = Field(
        default=False,
        description="Always blocked, fails closed, never shadowed, excused, stored or shown; local models only.",
        examples=[False],
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce",
        description="`shadow` records what this category would do, and does nothing.",
        examples=["shadow"],
    )
    taxonomy: Taxonomy | None = Field(
        default=None,
        description="Where it belongs in somebody else's list of hazards, for whoever compares.",
        examples=[{"name": "AILuminate", "id": "ssh"}],
    )
    queries: CategoryQueries | None = Field(
        default=None,
        description="When this category is asked about. Omitted: at the policy's steps.",
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
        """What is asked about: the ``look_for`` terms, or the title where there are none."""
        return self.look_for or (self.title,)

    @property
    def cases(self) -> tuple[str, ...]:
        """Every case that excuses a term, once each, in policy order."""
        return tuple(dict.fromkeys(case for term in self.terms for case in self.excuses(term)))

    def excuses(self, term: str) -> tuple[str, ...]:
        """The cases that excuse one term."""
        return self.allowed.get(term, ()) if isinstance(self.allowed, Mapping) else self.allowed

    def words(self, found: Sequence[str]) -> tuple[str, ...]:
        """The words to inject, once each, in policy order.

        Args:
            found: the terms that were seen, in policy order; each takes the place of ``${found}`` in turn.
        """
        return tuple(
            dict.fromkeys(
                render(entry, found=term)
                for entry in self.negative
                for term in (found if placeholders(entry) else ("",))
            )
        )


class Rule(PolicyModel):
    """What several categories in one image lead to together."""

    all: tuple[Identifier, ...] = Field(
        min_length=1,
        max_length=100,
        description="Ids of the categories that must all be found.",
        examples=[["apparent_minor", "nudity"]],
    )
    action: AnyAction = Field(description="What that leads to.", examples=["block"])
