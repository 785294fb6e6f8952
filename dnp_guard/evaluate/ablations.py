"""The guard with one thing changed at a time: which policy each row of the ablation table is measured under."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.policy import Policy
from dnp_guard.policy.suggest import did_you_mean

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


BACK_OFF: Mapping[str, Any] = {"back_off": {"factor": 3.0, "below": 0.2}}

ABLATIONS: tuple[Ablation, ...] = (
    Ablation("as shipped", "The shipped policy."),
    Ablation("similar", "A look at what is like the last one is passed over.", {"queries": {"skip_similar": 0.95}}),
    Ablation("back-off", "Looks become rarer while nothing is near its threshold.", {"queries": BACK_OFF}),
    Ablation(
        "probe 0.01",
        "A look is passed over where a latent probe is sure that nothing would be found; one in a hundred missed.",
        {"queries": {"skip_probe": {"max_miss": 0.01}}},
    ),
    Ablation("probe 0.05", "The same; five in a hundred missed.", {"queries": {"skip_probe": {"max_miss": 0.05}}}),
    Ablation("most 3", "No more than three looks while the image is made.", {"queries": {"most": 3}}),
    Ablation("no waiting", "Denoising goes on while the model answers.", {"queries": {"wait": False}}),
    Ablation("controller", "The scale follows what the looks see.", {"guidance": {"strength": "controller"}}),
    Ablation(
        "controller, scale 20",
        "The same, with a higher scale as the most it may use.",
        {"guidance": {"strength": "controller", "scale": 20.0}},
    ),
    Ablation(
        "no hold", "A negative goes at the first look that no longer sees its category.", {"guidance": {"hold": 0}}
    ),
    Ablation("reuse 2", "The negative is evaluated at every second step.", {"guidance": {"reuse": 2}}),
    Ablation("reuse 3", "The same, at every third.", {"guidance": {"reuse": 3}}),
    Ablation("batched", "The negatives are evaluated in the batch of the host.", {"guidance": {"batched": True}}),
    Ablation(
        "mask 0.5", "Half of the picture is steered, where the negative differs most.", {"guidance": {"mask": 0.5}}
    ),
    Ablation("mask 0.3", "The same, of three tenths.", {"guidance": {"mask": 0.3}}),
    Ablation(
        "strongest",
        "Of several categories the likeliest alone is steered away from.",
        {"guidance": {"combine": "strongest"}},
    ),
    Ablation("sum", "Several categories have a term each.", {"guidance": {"combine": "sum"}}),
    Ablation(
        "orthogonal",
        "Only what is orthogonal to the prompt's own direction is added.",
        {"guidance": {"mode": "orthogonal"}},
    ),
    Ablation(
        "sum, orthogonal",
        "A term for each category, and of their sum what is orthogonal to the prompt's own direction.",
        {"guidance": {"mode": "orthogonal", "combine": "sum"}},
    ),
    Ablation(
        "cheap",
        "Back-off, a probe, the negative at every third step and in the batch of the host.",
        {
            "queries": {**BACK_OFF, "skip_probe": {"max_miss": 0.05}},
            "guidance": {"reuse": 3, "batched": True},
        },
    ),
    Ablation(
        "back-off and controller",
        "Looks become rarer, and the scale follows what they see, up to 20.",
        {"queries": BACK_OFF, "guidance": {"strength": "controller", "scale": 20.0}},
    ),
)
"""Every row, in the order of the table. What changes several things at once stands after what it is made of."""


def ablation(name: str) -> Ablation:
    """Find a row.

    Raises:
        DnpGuardError: there is none of that name.
    """
    for each in ABLATIONS:
        if each.name == name:
            return each
    raise DnpGuardError(f"there is no ablation {name!r}", hint=did_you_mean(name, [each.name for each in ABLATIONS]))
