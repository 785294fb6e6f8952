"""From text to plain data: one pass over the YAML events, which refuses everything that is more than data.

Only the events are used: no YAML object is ever constructed, so there is nothing for a tag, an alias or a merge key to
reach, and the place of every key and value is at hand.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import ScalarNode

from dnp_guard.errors import PolicyError, Problem
from dnp_guard.policy.read.characters import HIDDEN, decode, name_of
from dnp_guard.policy.read.document import Document, Place, shorten

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

    from dnp_guard.policy.model.violation import Loc

MAX_DEPTH = 20
MAX_NODES = 12_000
"""Keys and values; five hundred categories have fewer, and reading more takes longer than anyone should wait."""

_CORE = frozenset({"null", "bool", "int", "float"})
_LOST = "\0"
"""Stands for a key that cannot be kept, so that what belongs to it is read and dropped; no real key can be this one."""


def scan(raw: bytes, file: str) -> Document:
    """Read the bytes of a policy file as plain data.

    Args:
        raw: UTF-8 YAML 1.2.
        file: the path that problems name.

    Returns:
        The data and its places; problems that leave the rest readable are in ``problems``.

    Raises:
        PolicyError: the bytes cannot be read as one document of plain data at all.
    """
    text = decode(raw, file)
    yaml = YAML(typ="safe", pure=True)
    reader = _Reader(file, yaml)
    try:
        for event in yaml.parse(text):
            reader.take(event)
    except PolicyError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = Problem(
            file, line, column, "yaml-syntax", f"not YAML: {error.problem or error.context}.", _quoting(text, line)
        )
        raise PolicyError([*reader.document.problems, problem]) from None
    except Exception as error:  # noqa: BLE001 (the parser lets ValueError, OverflowError and others out)
        problem = Problem(
            file, reader.line, 1, "yaml-syntax", f"not YAML: {error}.", "The fault is at or after this line."
        )
        raise PolicyError([*reader.document.problems, problem]) from None
    if reader.documents == 0:
        raise PolicyError([Problem(file, 1, 1, "empty-file", "the file says nothing.", "Begin with `format: 1`.")])
    return reader.document


def _quoting(text: str, line: int) -> str:
    lines = text.splitlines()
    around = lines[line - 1] if 0 < line <= len(lines) else ""
    if "${" in around:
        return 'Put text with `${…}` in quotes: "${found}".'
    return "YAML wants spaces for indentation, and quotes around text with `: `, ` #`, brackets or braces."


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; ``key`` is the key that waits for its value."""

    target: dict[str, Any] | list[Any]
    loc: Loc
    key: str | None = None


class _Reader:
    """Builds the document from the events, one after the other."""

    def __init__(self, file: str, yaml: YAML) -> None:
        self.document = Document(file)
        self.documents = 0
        self.line = 1
        self._nodes = 0
        self._open: list[_Open] = []
        self._resolver, self._constructor = yaml.resolver, yaml.constructor

    def take(self, event: Event) -> None:
        """Take the next event in."""
        place = Place(event.start_mark.line + 1, event.start_mark.column + 1, getattr(event, "value", ""))
        self.line = place.line
        match event:
            case DocumentStartEvent():
                self._begin_document(event, place)
            case CollectionEndEvent():
                target = self._open.pop().target
                if isinstance(target, dict):
                    target.pop(_LOST, None)
            case NodeEvent():
                self._node(event, place)

    def _begin_document(self, event: DocumentStartEvent, place: Place) -> None:
        self.documents += 1
        if event.version or event.tags:
            self._problem(place, "directive", "a `%` directive", "Delete it: a policy is YAML 1.2.")
        if self.documents > 1:
            self._problem(place, "several-documents", "a second document begins here", "A file holds one policy.")
            raise PolicyError(self.document.problems)

    def _node(self, event: NodeEvent, place: Place) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._problem(place, "too-large", f"more than {MAX_NODES} keys and values", "Split the policy.")
            raise PolicyError(self.document.problems)
        if isinstance(event, AliasEvent):
            self._problem(place, "alias", f"alias `*{event.anchor}`", "Write the value out.")
        elif event.anchor:
            self._problem(place, "anchor", f"anchor `&{event.anchor}`", "Delete it: a policy has no aliases.")
        if tag := getattr(event, "tag", None):
            self._problem(place, "tag", f"tag `{tag}`", "Delete it: a policy is plain data.")
        parent = self._open[-1] if self._open else None
        if parent and isinstance(parent.target, dict) and parent.key is None:
            self._key(event, place, parent, parent.target)
        else:
            self._value(event, place, parent)

    def _key(self, event: NodeEvent, place: Place, parent: _Open, target: dict[str, Any]) -> None:
        parent.key = _LOST
        if isinstance(event, CollectionStartEvent):
            self._problem(place, "bad-key", "a key that is not a word", "Write `key: value`.")
            self._descend(event, place, (*parent.loc, _LOST))
        elif isinstance(event, ScalarEvent):
            name = event.value
            if name == "<<" and event.implicit[0]:
                self._problem(place, "merge-key", "merge key `<<`", "Write the keys out.")
            elif name in target:
                first = self.document.keys[(*parent.loc, name)].line
                self._problem(
                    place,
                    "duplicate-key",
                    f"`{shorten(name)}` is already there, in line {first}",
                    "Keep one of the two.",
                )
            elif not self._hides(name, place):
                parent.key = name
                self.document.keys[(*parent.loc, name)] = place

    def _value(self, event: NodeEvent, place: Place, parent: _Open | None) -> None:
        loc = self._next_loc(parent)
        if isinstance(event, CollectionStartEvent):
            value = self._descend(event, place, loc)
        elif isinstance(event, ScalarEvent):
            value = self._scalar(event)
            if value is None:
                self._problem(place, "empty-value", f"{_subject(loc)} has no value", "Give it one, or leave it out.")
            elif isinstance(value, str) and self._hides(value, place):
                value = None
        else:
            value = None
        if value is None:
            self.document.unread.add(loc)
        else:
            self.document.values[loc] = place
            self._attach(value, parent)
        if parent:
            parent.key = None

    def _descend(self, event: CollectionStartEvent, place: Place, loc: Loc) -> dict[str, Any] | list[Any]:
        if len(self._open) >= MAX_DEPTH:
            self._problem(place, "too-deep", f"nested more than {MAX_DEPTH} deep", "A policy is a flat thing.")
            raise PolicyError(self.document.problems)
        target: dict[str, Any] | list[Any] = {} if isinstance(event, MappingStartEvent) else []
        self._open.append(_Open(target, loc))
        return target

    def _next_loc(self, parent: _Open | None) -> Loc:
        if parent is None:
            return ()
        return (*parent.loc, len(parent.target) if parent.key is None else parent.key)

    def _attach(self, value: Any, parent: _Open | None) -> None:
        if parent is None:
            self.document.data = value
        elif isinstance(parent.target, list):
            parent.target.append(value)
        elif parent.key is not None:
            parent.target[parent.key] = value

    def _scalar(self, event: ScalarEvent) -> Any:
        """The value of a scalar in the YAML 1.2 core schema; what it does not know, a date for one, is text."""
        tag = str(self._resolver.resolve(ScalarNode, event.value, event.implicit)).rpartition(":")[2]
        if not event.implicit[0] or tag not in _CORE:
            return event.value
        node = ScalarNode(tag=tag, value=event.value)
        with suppress(ValueError, OverflowError):  # a number too long to be one stays text
            return getattr(self._constructor, f"construct_yaml_{tag}")(node)
        return event.value

    def _hides(self, text: str, place: Place) -> bool:
        """Whether an escape made a character that does not show; such a character as itself was refused before."""
        if hidden := HIDDEN.search(text):
            message = f"an escape makes {name_of(hidden[0])}, which does not show"
            self._problem(place, "hidden-character", message, "Delete it.")
        return bool(hidden)

    def _problem(self, place: Place, code: str, message: str, hint: str) -> None:
        self.document.problems.append(Problem(self.document.file, place.line, place.column, code, f"{message}.", hint))


def _subject(loc: Loc) -> str:
    return f"`{shorten(loc[-1])}`" if loc and isinstance(loc[-1], str) else "this"
