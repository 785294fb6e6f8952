"""Build negative prompts from findings; their words come from the policy, never from the vision-language model."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from dnp_guard.steering.strength import alpha_for, share_for
from dnp_guard.types import InAttention, Negative

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dnp_guard.policy import Policy
    from dnp_guard.steering.strength import Push


def negative_for(
    policy: Policy,
    active: Mapping[str, Sequence[str]],
    pushes: Mapping[str, Push] = MappingProxyType({}),
    *,
    escalated: bool = False,
) -> Negative | None:
    """Build the negative prompt of one image, with its strength.

    Args:
        policy: the policy in force.
        active: terms that were found, by id of the category to steer away from.
        pushes: strengths of these categories, under ``guidance.strength: controller``.
        escalated: whether to add the separate guidance term to steering in attention, if the policy has a scale.

    Returns:
        The words of all these categories, in policy order without repeats, at the highest strength of any of them.
        None if no category is active or the active categories have no words.
    """
    categories = [category for category in policy.categories if category.id in active]
    groups = _groups(category.words(active[category.id]) for category in categories)
    words = tuple(word for group in groups for word in group)
    if not words:
        return None
    shares = [share_for(policy, category, pushes.get(category.id)) for category in categories]
    mode, attention = policy.guidance.mode, policy.guidance.attention
    names = tuple(category.id for category in categories)
    scales = [policy.scale(name) for name in names]
    scale = max((s * share for s, share in zip(scales, shares, strict=True) if s is not None), default=None)
    if mode != "attention" or attention is None:
        return Negative(words, scale, mode, names)
    alpha = alpha_for(attention.alpha, max(shares))
    steers = InAttention(attention.phi, attention.tau, alpha, attention.mask)
    beside = scale if escalated and policy.guidance.scale is not None else None
    return Negative(words, beside, mode, names, steers, groups)


def _groups(words: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    """Group words by category, without words of earlier categories, and leave out groups that are then empty."""
    known: dict[str, None] = {}
    groups: list[tuple[str, ...]] = []
    for own in words:
        new = tuple(dict.fromkeys(word for word in own if word not in known))
        known |= dict.fromkeys(new)
        groups += [new] if new else []
    return tuple(groups)
