"""Apply ``extends`` to the plain data of a policy, before it is checked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dnp_guard.policy.read.document import Document

if TYPE_CHECKING:
    from dnp_guard.policy.model.violation import Loc

NOT_INHERITED = frozenset({"format", "name", "revision", "summary", "extends", "select", "exceptions", "floor"})
"""Top-level keys that apply to one file only."""

TOGETHER: dict[Loc, dict[str, tuple[str, ...]]] = {
    ("queries",): {"steps": ("of",)},
    ("guidance",): {"mode": ("scale", "strength", "mask", "reuse", "batched", "attention", "escalate")},
}
"""Keys that are not inherited if the extension changes the key on which their meaning depends."""


def merged(base: Document, over: Document) -> Document:
    """Merge a document with the one that extends it.

    Mappings are merged key by key and ``categories`` by id, in the base's order with new ones last. The extension's
    ``rules`` are added to the base's. Any other value, including a list, replaces the base's.

    Args:
        base: the document that ``extends`` names, with its own bases applied.
        over: the document that extends it.

    Returns:
        A document that records the file and position of every value.
    """
    made = _Merge(base, over)
    inherited = {key: value for key, value in base.data.items() if key not in NOT_INHERITED}
    own = {key: value for key, value in over.data.items() if key != "extends"}
    made.out.data = made.both(inherited, own, ((), (), ()))
    made.unread()
    return made.out


Locs = tuple["Loc", "Loc", "Loc"]
"""Paths of one value in the base, in the extension and in the result."""


class _Merge:
    """Merges the data of two documents, and the positions of their keys and values."""

    def __init__(self, base: Document, over: Document) -> None:
        self.base, self.over = base, over
        self.out = Document(over.file, problems=list(over.problems))
        self._moved: dict[Loc, Loc] = {}

    def both(self, base: dict[str, Any], over: dict[str, Any], at: Locs) -> dict[str, Any]:
        """Merge two mappings at the paths ``at``, key by key."""
        self._place(self.over, at[1], at[2])
        gone = {name for key, names in TOGETHER.get(at[2], {}).items() if _changes(base, over, key) for name in names}
        data: dict[str, Any] = {}
        for key in dict.fromkeys([*base, *over]):
            ways: Locs = ((*at[0], key), (*at[1], key), (*at[2], key))
            if key not in over:
                if key not in gone:
                    data[key] = self._copy(self.base, base[key], ways[0], ways[2])
            elif key not in base:
                data[key] = self._copy(self.over, over[key], ways[1], ways[2])
            else:
                data[key] = self._either(base[key], over[key], ways)
        return data

    def _either(self, base: Any, over: Any, at: Locs) -> Any:
        if isinstance(base, dict) and isinstance(over, dict):
            return self.both(base, over, at)
        if isinstance(base, list) and isinstance(over, list) and at[2] == ("categories",):
            return self._by_id(base, over, at)
        if isinstance(base, list) and isinstance(over, list) and at[2] == ("rules",):
            rules = self._copy(self.base, base, at[0], at[2])
            self._place(self.over, at[1], at[2])
            for index, rule in enumerate(over):
                rules.append(self._copy(self.over, rule, (*at[1], index), (*at[2], len(base) + index)))
            return rules
        return self._copy(self.over, over, at[1], at[2])

    def _by_id(self, base: list[Any], over: list[Any], at: Locs) -> list[Any]:
        self._place(self.over, at[1], at[2])
        anew: dict[str, int] = {}
        for index, category in enumerate(over):
            if isinstance(category, dict) and isinstance(name := category.get("id"), str):
                anew.setdefault(name, index)
        data: list[Any] = []
        for index, category in enumerate(base):
            new = (*at[2], len(data))
            position = anew.pop(str(category.get("id")), None) if isinstance(category, dict) else None
            if position is None:
                data.append(self._copy(self.base, category, (*at[0], index), new))
            else:
                data.append(self.both(category, over[position], ((*at[0], index), (*at[1], position), new)))
        for index, category in enumerate(over):
            if (*at[1], index) not in self._moved:
                data.append(self._copy(self.over, category, (*at[1], index), (*at[2], len(data))))
        return data

    def _copy(self, document: Document, value: Any, old: Loc, new: Loc) -> Any:
        self._place(document, old, new)
        if isinstance(value, dict):
            return {key: self._copy(document, part, (*old, key), (*new, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self._copy(document, part, (*old, index), (*new, index)) for index, part in enumerate(value)]
        return value

    def _place(self, document: Document, old: Loc, new: Loc) -> None:
        if document is self.over:
            self._moved[old] = new
        for places, into in ((document.keys, self.out.keys), (document.values, self.out.values)):
            if place := places.get(old):
                into[new] = replace(place, file=place.file or document.file)

    def unread(self) -> None:
        """Copy the paths of unreadable values from the extending document to the result."""
        for loc in self.over.unread:
            self.out.unread.add((*self._moved.get(loc[:-1], loc[:-1]), loc[-1]) if loc else loc)


def _changes(base: dict[str, Any], over: dict[str, Any], key: str) -> bool:
    return key in over and (key == "steps" or over[key] != base.get(key))
