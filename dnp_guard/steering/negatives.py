"""From findings to the words of a negative prompt. Pure; the words come from the policy, never from the model."""

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
    """Build the negative of one image.

    Args:
        policy: the policy in force.
        active: ids of the categories to steer away from, with their found terms.
        pushes: their strengths, under ``strength: controller``.
        escalated: whether attention gets the separate term beside it, if the policy has a scale.

    Returns:
        Words in policy order without repetition, at the strongest category's scale or attention. None if no category
        is active or the active categories have no words.
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
    """Group the words by category, without words of an earlier category; leave out categories without others."""
    known: dict[str, None] = {}
    groups: list[tuple[str, ...]] = []
    for own in words:
        new = tuple(dict.fromkeys(word for word in own if word not in known))
        known |= dict.fromkeys(new)
        groups += [new] if new else []
    return tuple(groups)
