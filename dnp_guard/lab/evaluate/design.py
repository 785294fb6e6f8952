"""What a run measures: which methods on which prompts, cut into batches that are the same in every run."""

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
"""Methods that are also measured with policies of one category, two, and so on to all."""

GUARDED = ("oracle", "dnp-guard", "dnp-guard-retry", "dnp-guard-separate", "dnp-guard-whole-list")
"""Methods that have a policy."""

ASKING = (*GUARDED, "vl-dnp", "evl-dnp")
"""Methods that ask a vision-language model."""

KNOWING = ("oracle", "static-right-name", "static-right-name-replace", "nag-right-name")
"""Methods that are told what the prompt draws, which no one could know beforehand."""


class Column(NamedTuple):
    """One method as it is run.

    Attributes:
        method: its name.
        scale: of its negative; None for its own.
        categories: how many categories its policy or list has; None for all, as shipped.
    """

    method: str
    scale: float | None = None
    categories: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts that are generated together.

    Attributes:
        set: name of the prompt set.
        number: of the batch, over all sets.
        start: index of the first prompt in its set.
        entries: the prompts, all with the same guidance.
    """

    set: str
    number: int
    start: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """A whole run.

    Attributes:
        sets: the prompts of each set.
        columns: what is run on every set, ``unguarded`` first.
        grown: what is run beside them on sets whose prompts draw several categories at once.
        policy: the guard's.
        seed: added to every prompt's own.
        steps: of the sampler.
        guidance_scale: of the prompts, where they have none of their own.
        size: of a batch, at most.
        model: what the images are made with.
        detector: spec of what judges them.
        clip: folder or id of the model of the alignment score; None for no such score.
        keep_images: whether all images are kept, and not only what the contact sheets need.
        only_grown: whether, where policies grow, only the methods are run whose policies do.
        vlm: spec of the backend that methods ask.
        sampler: in place of the model's own.
        files: by set, what the prompts were read from: digest, columns.
        revision: of the model.
        judged_from: folder of the run whose images are judged again; empty to draw them.
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
        """Whether it is the Glyphs world that is measured."""
        from dnp_guard.glyphs.loading import MODELS  # noqa: PLC0415 (a plan that is read back needs no torch)

        return self.model in MODELS

    @property
    def terms(self) -> dict[str, str]:
        """What the policy looks for, each with its question: a model's static lists are made of them."""
        return {question.term: question.text for question in questions(self.policy)}

    def guidance_of(self, entry: Entry) -> float:
        """The guidance of a prompt: its own, where the model takes any."""
        own = entry.guidance_scale if self.guidance_scale > 1 else None
        return own or self.guidance_scale

    def columns_of(self, name: str) -> tuple[Column, ...]:
        """What is run on one set."""
        if not any(len(entry.prompt.forbidden) > 1 for entry in self.sets[name]):
            return self.columns
        grown = {UNGUARDED, *(column.method for column in self.grown)}
        shipped = tuple(column for column in self.columns if column.method in grown or not self.only_grown)
        return shipped + self.grown

    def sizes(self) -> list[int]:
        """How many rows each batch has."""
        return [len(batch.entries) * len(self.columns_of(batch.set)) for batch in self.batches()]

    def batches(self) -> list[Batch]:
        """Every batch, in the order in which they are measured."""
        found: list[Batch] = []
        for name, entries in self.sets.items():
            start = 0
            for _, alike in groupby(entries, key=lambda entry: (entry.guidance_scale, bool(entry.picture))):
                run = list(alike)
                for at in range(0, len(run), self.size):
                    part = tuple(run[at : at + self.size])
                    found.append(Batch(name, len(found), start, part))
                    start += len(part)
        return found


def columns_of(words: Iterable[str], scales: Sequence[float] = ()) -> tuple[Column, ...]:
    """What is run, ``unguarded`` first and everything once.

    Args:
        words: names of methods, or ``NAME@SCALE``.
        scales: for every method that has a scale and is not named with one; none for its own.

    Raises:
        DnpGuardError: there is no such method, or it has no scale.
    """
    from dnp_guard.lab.evaluate.methods import method  # noqa: PLC0415 (a plan that is read back needs no torch)

    found = [Column(UNGUARDED)]
    for word in words:
        name, _, at = word.partition("@")
        if at:
            scale = _scale(word, at)
            method(name, scale=scale)
            found.append(Column(name, scale))
        elif scales and _scalable(method(name)):
            found += [Column(name, scale) for scale in scales]
        else:
            method(name)
            found.append(Column(name))
    return tuple(dict.fromkeys(found))


def _scale(word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DnpGuardError(f"{word!r}: {text!r} is no scale", hint="Write a name, or NAME@SCALE.") from error


def _scalable(made: Method) -> bool:
    return made.scale is not None


def categories_from(first: str, count: int, order: Sequence[str] = FORBIDDEN) -> tuple[str, ...]:
    """The first ``count`` categories, counted from one of them round the circle.

    >>> categories_from("skull", 2, ("star", "skull", "bolt"))
    ('skull', 'bolt')
    """
    at = list(order).index(first)
    return tuple(order[(at + k) % len(order)] for k in range(count))


def restricted(policy: Policy, categories: Sequence[str]) -> Policy:
    """The policy with some of its categories only, in its own order.

    Raises:
        DnpGuardError: it has none of them.
    """
    kept = [category for category in policy.resolved()["categories"] if category["id"] in set(categories)]
    if not kept:
        raise DnpGuardError(
            f"policy {policy.name!r} has none of the categories {', '.join(categories)}",
            hint="Measure it on a prompt set that draws what it forbids.",
        )
    return type(policy).model_validate({**policy.resolved(), "categories": kept, "rules": []})
