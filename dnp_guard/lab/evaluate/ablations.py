"""The guard with one thing changed at a time: which policy each row of the ablation table is measured under."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Ablation:
    """One row.

    Attributes:
        name: of the row.
        says: what is changed, in one line.
        changes: keys by part of the policy (``queries``, ``guidance``, …); None takes a key out.
    """

    name: str
    says: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, policy: Policy) -> Policy:
        """The policy so changed.

        Raises:
            ValueError: it does not check; pydantic's error.
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
"""Changes of how the negative enters the guidance: name, what is changed, keys."""


def _steered(name: str, says: str, guidance: Mapping[str, Any]) -> Ablation:
    return Ablation(
        name, f"Of *every step*: {says}", {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, **guidance}}
    )


ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "every step",
        "Every step of the list is looked at, and the negative is a separate term, evaluated at every step.",
        {"queries": EVERY_STEP, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "similar",
        "Of *every step*: a look at what is like the last one is passed over.",
        {"queries": {**EVERY_STEP, "skip_similar": 0.95}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "probe 0.01",
        "Of *every step*: a look is passed over where a latent probe is sure that nothing would be found; one in a "
        "hundred missed.",
        {"queries": {**EVERY_STEP, "skip_probe": {"max_miss": 0.01}}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "probe 0.05",
        "The same; five in a hundred missed.",
        {"queries": {**EVERY_STEP, "skip_probe": {"max_miss": 0.05}}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "no waiting",
        "Of *every step*: denoising goes on while the model answers.",
        {"queries": {**EVERY_STEP, "wait": False}, "guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "no hold",
        "Of *every step*: a negative goes at the first look that no longer sees its category.",
        {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, "hold": 0}},
    ),
    Ablation(
        "controller",
        "Of *every step*: the scale follows what the looks see.",
        {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, **CONTROLLER}},
    ),
    Ablation(
        "controller, scale 20",
        "The same, with a higher scale as the most it may use.",
        {"queries": EVERY_STEP, "guidance": {**EVERY_EVALUATION, **CONTROLLER, "scale": 20.0}},
    ),
    *(_steered(name, says, guidance) for name, says, guidance in THIRD_BRANCH),
    _steered("reuse 3", "the negative is evaluated at every third step.", {"reuse": 3}),
    Ablation(
        "cheap",
        "Of *every step*: *probe 0.05*, *reuse 3* and *batched*.",
        {
            "queries": {**EVERY_STEP, "skip_probe": {"max_miss": 0.05}},
            "guidance": {**EVERY_EVALUATION, "reuse": 3, "batched": True},
        },
    ),
    Ablation(
        "back-off",
        "Looks become rarer while nothing is near its threshold; the negative is evaluated at every step.",
        {"guidance": EVERY_EVALUATION},
    ),
    Ablation(
        "back-off and controller",
        "The same, and the scale follows what the looks see, up to 20.",
        {"guidance": {**EVERY_EVALUATION, **CONTROLLER, "scale": 20.0}},
    ),
    Ablation(
        "back-off and reuse 3",
        "*back-off* with *reuse 3*.",
        {"guidance": {**EVERY_EVALUATION, "reuse": 3}},
    ),
    Ablation(
        "attention",
        "Of *every step*: attention steers, and no separate term but for what outlasts it.",
        {"queries": EVERY_STEP},
    ),
    Ablation(
        "attention, looks while steered",
        "Of *as shipped*: a steered image is looked at as often as one in which something was found.",
        {"queries": {"back_off": {"factor": 3, "below": 0.2}}},
    ),
    Ablation(
        "attention alone",
        "Of *as shipped*: nothing is added to attention, whatever outlasts it.",
        {"guidance": {"escalate": None}},
    ),
    Ablation(
        "attention everywhere",
        "Of *as shipped*: attention is steered at all positions.",
        {"guidance": {"attention": {"phi": 40.0, "tau": 1.5, "alpha": 1.0}}},
    ),
    Ablation("as shipped", "*back-off*, also while steered, and *attention* with what outlasts it met by both."),
    Ablation(
        "all that is cheap",
        "*as shipped*, *probe 0.05* and, where the negative is a separate term, *batched*: the policy `glyphs-light`.",
        {"queries": {"skip_probe": {"max_miss": 0.05}}, "guidance": {"batched": True}},
    ),
)
"""Every row, in the order of the table. What changes several things at once stands after what it is made of."""


def ablation(name: str) -> Ablation:
    """Return the row of the ablation table with a name.

    Raises:
        DnpGuardError: the table has no row with that name.
    """
    for each in ABLATIONS:
        if each.name == name:
            return each
    raise DnpGuardError(f"there is no ablation {name!r}", hint=did_you_mean(name, [each.name for each in ABLATIONS]))
