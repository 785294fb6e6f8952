"""From findings to the words of a negative prompt. Pure; the words are the policy's, never the model's."""

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
    """The one negative of an image.

    Args:
        policy: the policy in force.
        active: ids of the categories to steer away from, each with its found terms.
        pushes: how the controller pushes them, under ``strength: controller``.
        escalated: whether attention gets the separate term beside it, where the policy has a scale.

    Returns:
        Words in policy order without repetition, at the strongest category's scale or attention. None when nothing is
        active or the active categories have no words.
    """
    categories = [category for category in policy.categories if category.id in active]
    groups = _groups(category.words(active[category.id]) for category in categories)
    words = tuple(word for group in groups for word in group)
    if not words:
        return None
    shares = [share_for(policy, category, pushes.get(category.id)) for category in categories]
    mode, attention, of = policy.guidance.mode, policy.guidance.attention, tuple(each.id for each in categories)
    scales = [policy.scale(category) for category in of]
    scale = max((s * share for s, share in zip(scales, shares, strict=True) if s is not None), default=None)
    if mode != "attention" or attention is None:
        return Negative(words, scale, mode, of)
    steers = InAttention(attention.phi, attention.tau, alpha_for(attention.alpha, max(shares)))
    beside = scale if escalated and policy.guidance.scale is not None else None
    return Negative(words, beside, mode, of, steers, groups)


def _groups(words: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    """The words of each category, without those of a category before it; none of a category that has no others."""
    known: dict[str, None] = {}
    groups: list[tuple[str, ...]] = []
    for own in words:
        new = tuple(dict.fromkeys(word for word in own if word not in known))
        known |= dict.fromkeys(new)
        groups += [new] if new else []
    return tuple(groups)
