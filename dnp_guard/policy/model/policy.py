"""A policy, format 1: the whole file as one frozen value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dnp_guard.canonical import canonical
from dnp_guard.policy.model import inputs, rules
from dnp_guard.policy.model.category import Category, Rule
from dnp_guard.policy.model.ends import Retries, Withheld  # noqa: TC001 (pydantic reads them when it runs)
from dnp_guard.policy.model.scalars import Bases, Identifier, Line, PolicyModel, Text
from dnp_guard.policy.model.scope import Floor, PolicyException, Select  # noqa: TC001 (pydantic reads them when it runs)
from dnp_guard.policy.model.sections import (
    DEFAULT_SCALE,
    Audit,
    Guidance,
    Inputs,
    Preview,
    Queries,
    QuestionTemplate,
    Vlm,
)
from dnp_guard.policy.model.violation import Loc, Violation
from dnp_guard.types import Action

BROKEN_RULES = "policy_rules"
"""Type of the pydantic error that carries violations of the rules between fields, in ``ctx["violations"]``."""


class Policy(PolicyModel):
    """The categories to look for in an image during its generation, and the response to a finding.

    Every instance is valid: the rules between its fields have been checked, and the defaults are filled in.
    """

    format: Literal[1] = Field(description="Version of the policy language.", examples=[1])
    name: Identifier = Field(description="Name in records and metrics.", examples=["default"])
    revision: Text = Field(default="0", description="The author's own version of this text.", examples=["1.0.0"])
    extends: Bases | None = Field(
        default=None,
        description="Another policy file in this folder or below it, or a list of files; a later file overrides an "
        "earlier one, and this policy overrides all: categories by id, lists as a whole; rules are added.",
        examples=[["packs/gore.yaml", "packs/hate.yaml"]],
    )
    summary: Line = Field(
        default="", description="Purpose of the policy, in one line.", examples=["Broad safety policy."]
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce",
        description="`shadow` records what the policy would do, and never alters or refuses an image.",
        examples=["enforce"],
    )
    on_failure: Literal["closed", "open", "last"] = Field(
        default="closed",
        description="If the guard cannot do its job: withhold the image, pass it, or apply the last decision.",
        examples=["closed"],
    )
    queries: Queries = Field(
        default_factory=Queries, description="When to query the model.", examples=[{"steps": [0.1, 0.3, 0.6]}]
    )
    inputs: Inputs | None = Field(
        default=None,
        description="Handling of the pictures that a request contains. Omitted: query them only if a category has "
        "`more_than_input`.",
        examples=[{"query": True, "action": "block"}],
    )
    question: QuestionTemplate = Field(
        default_factory=QuestionTemplate, description="How to word the questions.", examples=[{"paired": False}]
    )
    guidance: Guidance = Field(
        default_factory=Guidance,
        description="How a negative enters the guidance, and how strongly.",
        examples=[{"scale": 15}],
    )
    preview: Preview = Field(
        default_factory=Preview, description="Which preview of the image the model sees.", examples=[{"method": "auto"}]
    )
    categories: tuple[Category, ...] = Field(
        min_length=1,
        max_length=1_000,
        description="Things to look for; the earlier of two equal categories takes precedence. Required unless "
        "`extends` supplies them.",
        examples=[[{"id": "nudity", "negative": ["nudity"]}]],
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        max_length=1_000,
        description="Responses to several categories found in one image.",
        examples=[[{"all": ["apparent_minor", "nudity"], "action": "block"}]],
    )
    retries: Retries | None = Field(
        default=None,
        description="How to generate an image again if a category says `still_present: retry`.",
        examples=[{"most": 1, "otherwise": "block"}],
    )
    withheld: Withheld | None = Field(
        default=None,
        description="Replacement for an image that is withheld.",
        examples=[{"text": "This image was withheld.", "style": "blank"}],
    )
    audit: Audit = Field(
        default_factory=Audit, description="Contents of the audit record.", examples=[{"retention_days": 90}]
    )
    vlm: Vlm | None = Field(
        default=None, description="Which backends may be used. Omitted: any.", examples=[{"allow": ["local"]}]
    )

    select: Select | None = Field(
        default=None,
        description="In a store: whom the policy is for. Omitted: everyone.",
        examples=[{"tenants": ["acme"]}],
    )
    exceptions: tuple[PolicyException, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1_000,
        description="Settings that differ until a set time.",
        examples=[
            [
                {
                    "category": "nudity",
                    "set": {"threshold": 0.8},
                    "until": "2027-01-31T00:00:00Z",
                    "reason": "An exhibition.",
                    "approved_by": "Head of policy",
                }
            ]
        ],
    )
    floor: Floor | None = Field(
        default=None,
        description="For a base that others may only tighten, above all `floor.yaml` of a store.",
        examples=[{"locked": ["self_harm"]}],
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("categories"), list | tuple):
            return data
        queries = data.get("queries")
        final = queries.get("final", True) if isinstance(queries, Mapping) else getattr(queries, "final", True)
        if final is False:
            return data
        filled = {**data, "categories": [_still_present(category) for category in data["categories"]]}
        if data.get("retries") is None and any(map(_retries, filled["categories"])):
            filled["retries"] = {}
        return filled

    @model_validator(mode="after")
    def _check(self) -> Self:
        if broken := tuple(_violations(self)):
            summary = "; ".join(violation.message for violation in broken)
            raise PydanticCustomError(BROKEN_RULES, "{summary}", {"summary": summary, "violations": broken})
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over the policy as canonical JSON with its defaults filled in."""
        return hashlib.sha256(canonical(self.resolved())).hexdigest()

    def resolved(self) -> dict[str, Any]:
        """Return the policy as JSON values with its defaults filled in; parsing them gives the same policy again."""
        return self.model_dump(mode="json", exclude_none=True)

    def category(self, category_id: str) -> Category:
        """Return a category by its id.

        Raises:
            KeyError: the policy has no such category.
        """
        for category in self.categories:
            if category.id == category_id:
                return category
        raise KeyError(category_id)

    @property
    def asks_inputs(self) -> bool:
        """Whether to query the pictures that a request contains."""
        if self.inputs is not None:
            return self.inputs.query
        return any(category.more_than_input is not None for category in self.categories)

    def shadow(self, category_id: str) -> bool:
        """Return whether a category only records, because it or the whole policy is in shadow mode."""
        return "shadow" in (self.mode, self.category(category_id).mode)

    def scale(self, category_id: str) -> float | None:
        """Return the scale of a category's separate negative term at full strength; None in modes without the term."""
        own = self.category(category_id).guidance
        return own.scale if own else self.guidance.scale

    def steered_by(self, mode: Literal["separate", "attention"], *, guided: bool = True) -> Policy:
        """Return the policy with the guidance mode ``auto`` replaced by a definite one; the digest stays the same.

        Args:
            mode: the mode to use.
            guided: whether the host computes an unconditional prediction, which a separate term besides attention
                needs.
        """
        if self.guidance.mode not in {"auto", mode}:
            return self
        if mode == "separate":
            keys: dict[str, Any] = {"attention": None, "escalate": None}
        elif guided:
            keys = {"batched": None}
        else:  # steer everywhere, since no separate term can remove what a mask leaves
            of = self.guidance.attention
            everywhere = None if of is None else of.model_copy(update={"mask": 1.0})
            keys = {"batched": None, "scale": None, "mask": None, "escalate": None, "attention": everywhere}
        return self._guided_by(mode=mode, **keys)

    def by_outputs(self) -> Policy:
        """Return the policy with ``mode: separate``, digest unchanged, for a host whose attention cannot be steered."""
        if self.guidance.mode not in {"auto", "attention"}:
            return self
        scale = DEFAULT_SCALE if self.guidance.scale is None else self.guidance.scale
        return self._guided_by(mode="separate", scale=scale, attention=None, escalate=None)

    def _guided_by(self, **keys: Any) -> Policy:
        made = self.model_copy(update={"guidance": self.guidance.model_copy(update=keys)})
        made.__dict__["digest"] = self.digest
        return made

    def vocabulary(self) -> tuple[str, ...]:
        """Return every word or phrase that may be injected as a negative prompt, without repeats, in policy order."""
        return tuple(dict.fromkeys(word for category in self.categories for word in category.words(category.terms)))


def _violations(policy: Policy) -> Iterator[Violation]:
    """Yield every broken rule that concerns several fields of a policy."""
    queries, categories = policy.queries, policy.categories
    if policy.extends is not None:
        yield Violation(
            "extends", ("extends",), "`extends` needs a file to start from", "Load the policy from its file."
        )
    yield from rules.steps(queries, categories)
    yield from inputs.inputs(policy.inputs, categories)
    yield from rules.templates(policy.question)
    yield from rules.replacing(policy.guidance, categories)
    yield from rules.attending(policy.guidance, categories)
    repeated = list(rules.ids(categories))
    yield from repeated
    for index, category in enumerate(categories):
        at: Loc = ("categories", index)
        yield from rules.words(category, at)
        yield from rules.actions(category, at, final=bool(queries.final))
        if category.sensitive:
            yield from rules.sensitive(
                category,
                at,
                mode=policy.mode,
                on_failure=policy.on_failure,
                prompt=policy.audit.prompt,
                final=bool(queries.final),
            )
    yield from rules.combinations(policy.rules, categories, known=not repeated)
    if repeated:
        return
    yield from rules.unknown_categories(categories, policy.floor, policy.exceptions or ())


def _still_present(category: Any) -> Any:
    if isinstance(category, Category) and category.still_present is None:
        return category.model_copy(update={"still_present": Action.BLOCK})
    return {"still_present": Action.BLOCK, **category} if isinstance(category, Mapping) else category


def _retries(category: Any) -> bool:
    own = category.get("still_present") if isinstance(category, Mapping) else getattr(category, "still_present", None)
    return own == Action.RETRY
