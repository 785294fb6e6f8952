"""Keys and values that the policy language once had: what they were, why they went, and how a policy does without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode

from dnp_guard.policy.model.keys import pattern

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

    from dnp_guard.policy.model.violation import Loc


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that a policy can no longer say.

    Attributes:
        why: what it was and why it went, as the message of a problem.
        instead: what to write instead, as its hint.
        value: what now takes a value's place.
    """

    why: str
    instead: str
    value: str = ""


_KEYS = {
    "guidance.combine": Removed(
        "`combine` is gone: it said how several categories are steered away from at once, and of prompts that draw two "
        "forbidden things 70 % still showed one under `strongest` and 20 % under `sum`, at 2.31 times the time; of all "
        "words as one negative, 8 %",
        "Delete it: the words of all that is seen make one negative, at the strongest scale.",
    ),
    "queries.most": Removed(
        "`most` is gone: it limited the number of looks, and with three of them 80 % of what prompts asked for besides "
        "was kept, in place of 97 %",
        "Delete it, and use `back_off` to look less often, or `budget_ms` to limit the waiting.",
    ),
}
_VALUES = {
    ("guidance.mode", "orthogonal"): Removed(
        "`mode: orthogonal` is gone: it added the part of the separate term orthogonal to the prompt's direction, and "
        "86 % to 100 % of prompts that draw something forbidden still showed it",
        "Write `mode: separate`.",
        "separate",
    ),
}


def removed_key(loc: Loc) -> Removed | None:
    """What became of a key that is not known, if it ever was one."""
    return _KEYS.get(pattern(loc))


def removed_value(loc: Loc, value: object) -> Removed | None:
    """What became of a value that a key does not take, if it ever did."""
    return _VALUES.get((pattern(loc), value)) if isinstance(value, str) else None


def without_removed(text: str) -> str:
    """A policy without what is gone; everything else, comments outside of braces too, stays as it is written.

    Args:
        text: of a policy that can be read as plain data.
    """
    yaml = YAML(typ="safe", pure=True)
    while edit := _edit(text, yaml.compose(text), ()):
        start, end, put = edit
        text = text[:start] + put + text[end:]
    return text


def _edit(text: str, node: Node, loc: Loc) -> tuple[int, int, str] | None:
    """The first range of the text that has to change, and what takes its place."""
    if not isinstance(node, MappingNode):
        gone = removed_value(loc, node.value)
        return (node.start_mark.index, node.end_mark.index, gone.value) if gone else None
    for place, (key, value) in enumerate(node.value):
        at = (*loc, key.value)
        if _goes(value, at):
            return (*_entry(text, node, place), "")
        if edit := _edit(text, value, at):
            return edit
    return None


def _goes(node: Node, loc: Loc) -> bool:
    """Whether a key goes: it is gone itself, or everything under it is."""
    if isinstance(node, MappingNode) and node.value:
        return all(_goes(value, (*loc, key.value)) for key, value in node.value)
    return removed_key(loc) is not None


def _entry(text: str, mapping: MappingNode, place: int) -> tuple[int, int]:
    """The range of one entry: its lines, or in braces up to the next, and from the one before where it is the last."""
    key, value = mapping.value[place]
    start, end = key.start_mark.index, value.end_mark.index
    if not mapping.flow_style:
        while isinstance(value, CollectionNode) and not value.flow_style:  # which ends only where the next key begins
            last = value.value[-1]
            value = last[1] if isinstance(last, tuple) else last
        return text.rfind("\n", 0, start) + 1, text.find("\n", value.end_mark.index - 1) + 1 or len(text)
    if place + 1 < len(mapping.value):
        end = mapping.value[place + 1][0].start_mark.index
    elif place:
        start = mapping.value[place - 1][1].end_mark.index
    return start, end
