"""From findings to the words of a negative prompt. Pure; the words are the policy's, never the model's."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from dnp_guard.steering.strength import scale_for
from dnp_guard.types import Negative, Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.policy import Policy
    from dnp_guard.steering.strength import Push


def negative_for(
    policy: Policy,
    active: Mapping[str, Sequence[str]],
    pushes: Mapping[str, Push] = MappingProxyType({}),
    probabilities: Mapping[str, float] = MappingProxyType({}),
) -> Negative | None:
    """The one negative of an image.

    Args:
        policy: the policy in force.
        active: ids of the categories to steer away from, each with its found terms.
        pushes: how the controller pushes them, under ``strength: controller``.
        probabilities: of the categories at this look, by which ``combine: strongest`` chooses.

    Returns:
        Words in policy order without repetition, at the strongest category's scale; under ``combine: sum`` in parts,
        one a category, each at its own. None when nothing is active or the active categories have no words.
    """
    categories = [category for category in policy.categories if category.id in active]
    scales = {each.id: scale_for(policy, each, pushes.get(each.id)) for each in categories}
    if policy.guidance.combine == "strongest" and categories:
        with_words = [each for each in categories if each.words(active[each.id])] or categories
        categories = [max(with_words, key=lambda each: (probabilities.get(each.id, 0.0), scales[each.id] or 0.0))]
    parts: list[Part] = []
    for category in categories:
        said = {word for part in parts for word in part.words}
        words = tuple(word for word in category.words(active[category.id]) if word not in said)
        if words:
            parts.append(Part(words, scales[category.id] or 0.0))
    if not parts:
        return None
    return Negative(
        words=tuple(word for part in parts for word in part.words),
        scale=max((scale for each in categories if (scale := scales[each.id]) is not None), default=None),
        mode=policy.guidance.mode,
        categories=tuple(category.id for category in categories),
        parts=tuple(parts) if policy.guidance.combine == "sum" and len(parts) > 1 else (),
    )
