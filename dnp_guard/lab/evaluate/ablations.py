"""Define the rows of the ablation table: the policy with one thing changed at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Ablation:
    """One row of the ablation table.

    Attributes:
        name: name of the row.
        says: description of the change, in one line.
        changes: keys to set, by part of the policy (``queries``, ``guidance``, …); the value None removes a key.
    """

    name: str
    says: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, policy: Policy) -> Policy:
        """Return a changed copy of a policy, with the keys of this ablation set.

        Raises:
            ValueError: if the changed policy is not valid; the error is pydantic's.
        """
        data = policy.resolved()
        for part, keys in self.changes.items():
            merged = {**data.get(part, {}), **keys}
            data[part] = {key: value for key, value in merged.items() if value is not None}
        return Policy.model_validate(data)


EVERY_STEP: Mapping[str, Any] = {"back_off": None}
EVERY_EVALUATION: Mapping[str, Any] = {"mode": "separate", "attention": None, "escalate": None, "reuse": None}
CONTROLLER: Mapping[str, Any] = {"strength": "controller"}

THIRD_BRANCH: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("reuse 2", "the negative is evaluated at every second step.", {"reuse": 2}),
    ("batched", "the negatives are evaluated in the batch of the host.", {"batched": True}),
    ("mask 0.5", "half of the picture is steered, where the negative differs most.", {"mask": 0.5}),
    ("mask 0.3", "three tenths of the picture are steered.", {"mask": 0.3}),
)
"""Changes of how the negative enters the guidance: name, description and keys of ``guidance``."""


def _steered(name: str, says: str, guidance: Mapping[str, Any]) -> Ablation:
    return Ablation(
        name, f"*every step*, but {says}", {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, **guidance}}
    )


ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "every step",
        "Every step of the list is queried, and the negative is a separate term, evaluated at every step.",
        {"queries": EVERY_STEP, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "similar",
        "*every step*, but a query is skipped if the prediction is similar to the last one queried.",
        {"queries": {**EVERY_STEP, "skip_similar": 0.95}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "probe 0.01",
        "*every step*, but a query is skipped if a latent probe is sure that it would find nothing; the probe may miss "
        "one finding in a hundred.",
        {"queries": {**EVERY_STEP, "skip_probe": {"max_miss": 0.01}}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "probe 0.05",
        "The same; the probe may miss five findings in a hundred.",
        {"queries": {**EVERY_STEP, "skip_probe": {"max_miss": 0.05}}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "no waiting",
        "*every step*, but denoising goes on while the model answers.",
        {"queries": {**EVERY_STEP, "wait": False}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "no hold",
        "*every step*, but a negative is cleared at the first query that no longer sees its category.",
        {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, "hold": 0}},
    ),
    Ablation(
        "controller",
        "*every step*, but the scale follows the findings.",
        {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, **CONTROLLER}},
    ),
    Ablation(
        "controller, scale 20",
        "The same, with a higher limit of the scale.",
        {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, **CONTROLLER, "scale": 20.0}},
    ),
    *(_steered(name, says, guidance) for name, says, guidance in THIRD_BRANCH),
    _steered("reuse 3", "the negative is evaluated at every third step.", {"reuse": 3}),
    Ablation(
        "cheap",
        "*every step* with *probe 0.05*, *reuse 3* and *batched*.",
        {
            "queries": {**EVERY_STEP, "skip_probe": {"max_miss": 0.05}},
            "guidance": {**EVERY_EVALUATION, "reuse": 3, "batched": True},
        },
    ),
    Ablation(
        "back-off",
        "Queries become rarer while no category is near its threshold; the negative is evaluated at every step.",
        {"guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "back-off and controller",
        "The same, and the scale follows the findings, up to 20.",
        {"guidance": {**EVERY_EVALUATION, **CONTROLLER, "scale": 20.0}},
    ),
    Ablation(
        "back-off and reuse 3",
        "*back-off* with *reuse 3*.",
        {"guidance": {**EVERY_EVALUATION, "reuse": 3}},
    ),
    Ablation(
        "attention",
        "*every step*, but attention steers; a separate term is added only for a category that outlasts it.",
        {"queries": EVERY_STEP},
    ),
    Ablation(
        "attention, looks while steered",
        "*as shipped*, but a steered image is queried as often as one with a finding.",
        {"queries": {"back_off": {"factor": 3, "below": 0.2}}},
    ),
    Ablation(
        "attention alone",
        "*as shipped*, but no separate term is added to attention, even if a category outlasts it.",
        {"guidance": {"escalate": None}},
    ),
    Ablation(
        "attention everywhere",
        "*as shipped*, but attention is steered at all positions.",
        {"guidance": {"attention": {"phi": 40.0, "tau": 1.5, "alpha": 1.0}}},
    ),
    Ablation(
        "as shipped",
        "*back-off*, also while an image is steered, and *attention*; both steer against a category that outlasts it.",
    ),
    Ablation(
        "all that is cheap",
        "*as shipped*, *probe 0.05* and, if the negative is a separate term, *batched*: the policy `glyphs-light`.",
        {"queries": {"skip_probe": {"max_miss": 0.05}}, "guidance": {"batched": True}},
    ),
)
"""All rows, in the order of the table. A row that combines several changes comes after the rows with one of them."""


def ablation(name: str) -> Ablation:
    """Return the row of the ablation table that has this name.

    Raises:
        DnpGuardError: if the table has no row with that name.
    """
    for row in ABLATIONS:
        if row.name == name:
            return row
    raise DnpGuardError(f"there is no ablation {name!r}", hint=did_you_mean(name, [row.name for row in ABLATIONS]))
