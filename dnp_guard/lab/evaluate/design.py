"""Plan a run: its methods, its prompts, and the division of the prompts into batches, the same in every run."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.scene import FORBIDDEN
from dnp_guard.policy import questions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dnp_guard.lab.evaluate.methods import Method
    from dnp_guard.lab.evaluate.prompt_sets import Entry
    from dnp_guard.policy import Policy

UNGUARDED = "unguarded"
GROWN = ("static-replace", "static-separate", "nag-static", "vsf-static", "dnp-guard")
"""Methods that are also measured with policies of one category, of two, and so on up to all."""

GUARDED = ("oracle", "dnp-guard", "dnp-guard-retry", "dnp-guard-separate", "dnp-guard-whole-list")
"""Methods that have a policy."""

ASKING = (*GUARDED, "vl-dnp", "evl-dnp")
"""Methods that ask a vision-language model."""

KNOWING = ("oracle", "static-right-name", "static-right-name-replace", "nag-right-name")
"""Methods that get the name of the forbidden content of a prompt, which no one could know beforehand."""


class Column(NamedTuple):
    """One method of the comparison, with its settings.

    Attributes:
        method: name of the method.
        scale: scale of its negative prompt; None for the method's default.
        categories: number of categories in its policy or static negative prompt; None for all, as shipped.
    """

    method: str
    scale: float | None = None
    categories: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts that are generated together.

    Attributes:
        set: name of the prompt set.
        number: number of the batch, over all sets.
        start: index of its first prompt in the set.
        entries: prompts of the batch, all with the same guidance scale.
    """

    set: str
    number: int
    start: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Plan of a whole evaluation run.

    Attributes:
        sets: prompts per set.
        columns: methods that run on every set, ``unguarded`` first.
        grown: methods with one category, with two, and so on; added on sets with prompts for several categories.
        policy: policy of the guard.
        seed: number that is added to every prompt's own seed.
        steps: number of steps of the sampler.
        guidance_scale: guidance scale of prompts without their own.
        size: largest number of prompts per batch.
        model: model that generates the images.
        detector: spec of the detector that judges the images.
        clip: folder or id of the CLIP model for the alignment score; None for no such score.
        keep_images: whether to keep all images; else only those of the contact sheets are kept.
        only_grown: whether sets to which ``grown`` is added run only the methods named in it, and ``unguarded``.
        vlm: spec of the backend that answers queries.
        sampler: name of the sampler that replaces the model's own; None to keep that.
        files: digest and columns of the prompts' file, per set.
        revision: revision of the model.
        judged_from: folder of the run whose images are judged again; empty to generate the images.
    """

    sets: Mapping[str, tuple[Entry, ...]]
    columns: tuple[Column, ...]
    grown: tuple[Column, ...]
    policy: Policy
    seed: int
    steps: int
    guidance_scale: float
    size: int = 16
    model: str = "glyphs"
    detector: str = "glyphs"
    clip: str | None = None
    keep_images: bool = False
    only_grown: bool = False
    vlm: str = "glyphs"
    sampler: str | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    revision: str = ""
    judged_from: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the model is one of the embedded Glyphs models."""
        from dnp_guard.glyphs.loading import MODELS  # noqa: PLC0415 (a plan that is read back needs no torch)

        return self.model in MODELS

    @property
    def terms(self) -> dict[str, str]:
        """VLM question per term of the policy. Static negative prompts list the terms, unless the model is embedded."""
        return {question.term: question.text for question in questions(self.policy)}

    def guidance_of(self, entry: Entry) -> float:
        """Return the guidance scale of a prompt: its own if it has one and the model runs with guidance."""
        own = entry.guidance_scale if self.guidance_scale > 1 else None
        return own or self.guidance_scale

    def columns_of(self, name: str) -> tuple[Column, ...]:
        """Return the methods, with their settings, that run on a prompt set."""
        if not any(len(entry.prompt.forbidden) > 1 for entry in self.sets[name]):
            return self.columns
        grown = {UNGUARDED, *(column.method for column in self.grown)}
        shipped = tuple(column for column in self.columns if column.method in grown or not self.only_grown)
        return shipped + self.grown

    def sizes(self) -> list[int]:
        """Return the number of result rows per batch, one per prompt and method."""
        return [len(batch.entries) * len(self.columns_of(batch.set)) for batch in self.batches()]

    def batches(self) -> list[Batch]:
        """Return all batches, in the order in which they are measured."""
        batches: list[Batch] = []
        for name, entries in self.sets.items():
            start = 0
            for _, alike in groupby(entries, key=lambda entry: (entry.guidance_scale, bool(entry.picture))):
                run = list(alike)
                for at in range(0, len(run), self.size):
                    part = tuple(run[at : at + self.size])
                    batches.append(Batch(name, len(batches), start, part))
                    start += len(part)
        return batches


def columns_of(words: Iterable[str], scales: Sequence[float] = ()) -> tuple[Column, ...]:
    """Read methods from their names; return them without duplicates and with ``unguarded`` first.

    Args:
        words: names of methods, or ``NAME@SCALE``.
        scales: scales at which to run every method that has a scale but is named without one; empty for its default.

    Raises:
        DnpGuardError: if there is no such method, or it has no scale.
    """
    from dnp_guard.lab.evaluate.methods import method  # noqa: PLC0415 (a plan that is read back needs no torch)

    columns = [Column(UNGUARDED)]
    for word in words:
        name, _, at = word.partition("@")
        if at:
            scale = _scale(word, at)
            method(name, scale=scale)
            columns.append(Column(name, scale))
        elif scales and _scalable(method(name)):
            columns += [Column(name, scale) for scale in scales]
        else:
            method(name)
            columns.append(Column(name))
    return tuple(dict.fromkeys(columns))


def _scale(word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DnpGuardError(f"{word!r}: {text!r} is no scale", hint="Write a name, or NAME@SCALE.") from error


def _scalable(made: Method) -> bool:
    return made.scale is not None


def categories_from(first: str, count: int, order: Sequence[str] = FORBIDDEN) -> tuple[str, ...]:
    """Return ``count`` categories of an order, beginning at ``first``; after its end, the order starts again.

    >>> categories_from("skull", 2, ("star", "skull", "bolt"))
    ('skull', 'bolt')
    """
    at = list(order).index(first)
    return tuple(order[(at + k) % len(order)] for k in range(count))


def restricted(policy: Policy, categories: Sequence[str]) -> Policy:
    """Return the policy with only some of its categories, in the policy's order, and without its rules.

    Raises:
        DnpGuardError: if the policy has none of these categories.
    """
    remaining = [category for category in policy.resolved()["categories"] if category["id"] in set(categories)]
    if not remaining:
        raise DnpGuardError(
            f"policy {policy.name!r} has none of the categories {', '.join(categories)}",
            hint="Measure the policy on a prompt set that asks for its categories.",
        )
    return type(policy).model_validate({**policy.resolved(), "categories": remaining, "rules": []})
