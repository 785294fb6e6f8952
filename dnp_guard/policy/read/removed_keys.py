"""Keys and values that were removed from the policy language: why, and what to write instead."""

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
    """A key or value that was removed.

    Attributes:
        why: meaning of the key and reason for its removal, as the message of a problem.
        instead: the replacement, as the hint of the problem.
        value: replacement of a removed value.
    """

    why: str
    instead: str
    value: str = ""


_KEYS = {
    "guidance.combine": Removed(
        "`combine` was removed: it set how to steer away from several categories at once. Of prompts that draw two "
        "forbidden things, 70 % still showed one under `strongest`, 20 % under `sum` at 2.31 times the time, and 8 % "
        "with all words in one negative",
        "Delete it: the words of all findings make one negative, at the strongest scale.",
    ),
    "queries.most": Removed(
        "`most` was removed: it limited the number of queries, and with a limit of three, images kept 80 % of the "
        "rest of their prompts, instead of 97 %",
        "Delete it, and use `back_off` to query less often, or `budget_ms` to limit the waiting.",
    ),
}
_VALUES = {
    ("guidance.mode", "orthogonal"): Removed(
        "`mode: orthogonal` was removed: it added only the part of the separate term orthogonal to the prompt's "
        "direction, and 86 % to 100 % of prompts that draw something forbidden still showed it",
        "Write `mode: separate`.",
        "separate",
    ),
}


def removed_key(loc: Loc) -> Removed | None:
    """Return why a key was removed, and what replaces it; None if it never was a key."""
    return _KEYS.get(pattern(loc))


def removed_value(loc: Loc, value: object) -> Removed | None:
    """Return why a value of a key was removed, and what replaces it; None if the key never accepted it."""
    return _VALUES.get((pattern(loc), value)) if isinstance(value, str) else None


def without_removed(text: str) -> str:
    """Delete the removed keys and values from the text of a policy.

    Everything else stays as written, including comments outside braces.

    Args:
        text: text of a policy that can be read as plain data.
    """
    yaml = YAML(typ="safe", pure=True)
    while edit := _edit(text, yaml.compose(text), ()):
        start, end, put = edit
        text = text[:start] + put + text[end:]
    return text


def _edit(text: str, node: Node, loc: Loc) -> tuple[int, int, str] | None:
    """Return the start, the end and the replacement of the first part of the text to change; None if there is none."""
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
    """Return whether to delete a key: it was removed, or every key under it was."""
    if isinstance(node, MappingNode) and node.value:
        return all(_goes(value, (*loc, key.value)) for key, value in node.value)
    return removed_key(loc) is not None


def _entry(text: str, mapping: MappingNode, place: int) -> tuple[int, int]:
    """Return the start and the end of a mapping's entry in the text.

    An entry in braces includes the comma after it or, for the last entry, the comma before it. Any other entry consists
    of whole lines.
    """
    key, value = mapping.value[place]
    start, end = key.start_mark.index, value.end_mark.index
    if not mapping.flow_style:
        while isinstance(value, CollectionNode) and not value.flow_style:  # its end mark is the start of the next key
            last = value.value[-1]
            value = last[1] if isinstance(last, tuple) else last
        return text.rfind("\n", 0, start) + 1, text.find("\n", value.end_mark.index - 1) + 1 or len(text)
    if place + 1 < len(mapping.value):
        end = mapping.value[place + 1][0].start_mark.index
    elif place:
        start = mapping.value[place - 1][1].end_mark.index
    return start, end
