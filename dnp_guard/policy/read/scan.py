"""Read YAML text as plain data, in one pass over the parser's events, and refuse every other feature of YAML.

Working on events means that no YAML object is ever constructed, so a tag, an alias or a merge key has no effect, and
that the position of every key and value is known.
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
from dnp_guard.policy.read.characters import HIDDEN, decode, doubtful, name_of
from dnp_guard.policy.read.document import Document, Place, shorten
from dnp_guard.policy.read.mistyped import mistyped
from dnp_guard.policy.read.slips import SPACES, Fault, bad_continuation, bad_text, continued, strange_space

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

    from dnp_guard.policy.model.violation import Loc

MAX_DEPTH = 20
MAX_NODES = 12_000
"""Most keys and values; five hundred categories have fewer, and reading more takes too long."""

_CORE = frozenset({"null", "bool", "int", "float"})
_LOST = "\0"
"""Replaces an invalid key, so that its value is read and dropped; no real key can be this one."""


def scan(raw: bytes, file: str) -> Document:
    """Read the bytes of a policy file as plain data.

    Args:
        raw: UTF-8 YAML 1.2.
        file: name of the file in problems.

    Returns:
        The data with positions. Mistakes that leave the rest readable are in ``problems``.

    Raises:
        PolicyError: the bytes are not one document of plain data.
    """
    text = decode(raw, file)
    yaml = YAML(typ="safe", pure=True)
    reader = _Reader(file, text, yaml)
    try:
        for event in yaml.parse(text):
            reader.take(event)
    except PolicyError:
        raise
    except Exception as error:  # noqa: BLE001 (the parser also raises ValueError, OverflowError and others)
        raise PolicyError([_unreadable(text, file, error, reader)]) from None
    if reader.documents == 0:
        raise PolicyError([Problem(file, 1, 1, "empty-file", "the file has no content.", "Begin with `format: 1`.")])
    return reader.document


def _unreadable(text: str, file: str, error: Exception, reader: _Reader) -> Problem:
    """Return the problem of an unreadable text, at the line to mend, or where the parser stopped if that is unknown."""
    mark = (error.problem_mark or error.context_mark) if isinstance(error, MarkedYAMLError) else None
    line, column = (mark.line + 1, mark.column + 1) if mark else (reader.line, 1)
    if fault := mistyped(text, file, line):
        return fault
    earlier = [problem for problem in reader.document.problems if problem.line <= line]
    if earlier:
        return earlier[0]
    hint = "Check its spaces and colons, and put text with `: `, ` #`, brackets or braces in quotes."
    return Problem(file, line, column, "yaml-syntax", "this line cannot be read as `key: value` or `- item`.", hint)


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read yet.

    Attributes:
        target: the collection.
        loc: path of the collection.
        key: the key that waits for its value.
        run_on: whether a second list item began here without a dash, so that its keys repeat.
    """

    target: dict[str, Any] | list[Any]
    loc: Loc
    key: str | None = None
    run_on: bool = False


class _Reader:
    """Builds the document from the parser's events."""

    def __init__(self, file: str, text: str, yaml: YAML) -> None:
        self.document = Document(file)
        self._lines = text.splitlines()
        self.documents = 0
        self.line = 1
        self._nodes = 0
        self._open: list[_Open] = []
        self._resolver, self._constructor = yaml.resolver, yaml.constructor

    def take(self, event: Event) -> None:
        """Add the next event of the YAML parser to the document."""
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
            line = next(number for number, line in enumerate(self._lines, 1) if line.startswith("%"))
            self._problem(Place(line, 1), "directive", "a line that begins with `%`", "Delete it.")
        if self.documents > 1:
            hint = "Delete the line `---`: a file holds one policy."
            self._problem(place, "several-documents", "a second policy begins here", hint)
            raise PolicyError(self.document.problems)

    def _node(self, event: NodeEvent, place: Place) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._problem(place, "too-large", f"more than {MAX_NODES} keys and values", "Split the policy.")
            raise PolicyError(self.document.problems)
        if isinstance(event, AliasEvent):
            hint = "Write the value out, or put text that begins with `*` in quotes."
            self._problem(place, "alias", f"`*{event.anchor}` stands for something written elsewhere", hint)
        elif event.anchor:
            hint = "Delete it, or put text that begins with `&` in quotes."
            self._problem(place, "anchor", f"`&{event.anchor}` is not permitted in a policy", hint)
        if tag := getattr(event, "tag", None):
            hint = "Delete it, or put text that begins with `!` in quotes."
            self._problem(place, "tag", f"`{_as_written(str(tag))}` is not permitted in a policy", hint)
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
                self._problem(place, "merge-key", "`<<` is not a key of a policy", "Write the keys out.")
            elif name in target:
                self._again(name, place, parent)
            elif not self._hides(name, place, key=True):
                parent.key = name
                self.document.keys[(*parent.loc, name)] = place

    def _value(self, event: NodeEvent, place: Place, parent: _Open | None) -> None:
        loc = self._next_loc(parent)
        if isinstance(event, CollectionStartEvent):
            value = self._descend(event, place, loc)
        elif isinstance(event, ScalarEvent):
            value = self._scalar(event)
            if value is None and not (event.anchor or event.tag):
                at = self.document.keys.get(loc, place) if not event.value else place
                self._problem(at, "empty-value", f"{_subject(loc)} has no value", "Give it one, or leave it out.")
            elif isinstance(value, str) and value and (self._hides(value, place) or self._mistyped(event)):
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

    def _again(self, name: str, place: Place, parent: _Open) -> None:
        """Report a repeated key; if it is the first key of a list item, a new item was probably meant."""
        if parent.run_on:
            return
        first = self.document.keys[(*parent.loc, name)].line
        message, hint = f"`{shorten(name)}` already appears in line {first}", "Keep one of the two."
        if parent.loc and isinstance(parent.loc[-1], int) and name == next(iter(parent.target)):
            parent.run_on = True
            self.document.unread.add(parent.loc)
            message += ": there is no dash before this item of the list"
            hint = f"Write `- {shorten(name)}: …`, or keep one of the two."
        self._problem(place, "duplicate-key", message, hint)

    def _mistyped(self, event: ScalarEvent) -> bool:
        """Report typeset quotes around a text, or a next key that became part of it; return whether there are any."""
        line, column = event.start_mark.line, event.start_mark.column
        if event.style in {"|", ">"}:
            return False
        lines = self._lines[line + 1 : event.end_mark.line + 1] if event.end_mark.line > line else []
        fault = None
        if event.style is None:
            fault = bad_text(event.value, line, column) or bad_continuation(
                self._lines[line][column:], lines, line, column
            )
        elif any(continued(text.strip()) for text in lines):
            hint = f"End the text with `{event.style}` on this line."
            fault = Fault(column, "this quote is not closed", hint, line)
        if fault and fault.line is not None:
            self._problem(Place(fault.line + 1, fault.column + 1), "yaml-syntax", fault.message, fault.hint)
        return fault is not None

    def _descend(self, event: CollectionStartEvent, place: Place, loc: Loc) -> dict[str, Any] | list[Any]:
        if len(self._open) >= MAX_DEPTH:
            self._problem(place, "too-deep", f"nested more than {MAX_DEPTH} deep", "Keep the policy flat.")
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
        """Return the value of a scalar in the YAML 1.2 core schema; any other type, such as a date, is text."""
        tag = str(self._resolver.resolve(ScalarNode, event.value, event.implicit)).rpartition(":")[2]
        if not event.implicit[0] or tag not in _CORE:
            return event.value
        node = ScalarNode(tag=tag, value=event.value)
        with suppress(ValueError, OverflowError):  # a number that is too long stays text
            return getattr(self._constructor, f"construct_yaml_{tag}")(node)
        return event.value

    def _hides(self, text: str, place: Place, *, key: bool = False) -> bool:
        """Report characters that mislead a reader, such as an escaped invisible one; return whether there are any."""
        if hidden := HIDDEN.search(text):
            message = f"character {name_of(hidden[0])}, made by a backslash, does not show"
            self._problem(place, "hidden-character", message, "Delete it.")
        elif doubt := doubtful(text):
            self._problem(self._within(place, doubt.text), doubt.code, doubt.message, doubt.hint)
        elif space := SPACES.search(text) if key else SPACES.match(text) or SPACES.match(text, len(text) - 1):
            at = self._within(place, space[0])
            fault = strange_space(space[0], at.column)
            self._problem(at, "strange-space", fault.message, fault.hint)
        else:
            return False
        return True

    def _within(self, place: Place, part: str) -> Place:
        """Return the position of a part of a text on its first line; if it is not there, that of the text."""
        column = self._lines[place.line - 1].find(part, place.column - 1)
        return Place(place.line, column + 1) if column >= 0 else place

    def _problem(self, place: Place, code: str, message: str, hint: str) -> None:
        self.document.problems.append(Problem(self.document.file, place.line, place.column, code, f"{message}.", hint))


def _subject(loc: Loc) -> str:
    return f"`{shorten(loc[-1])}`" if loc and isinstance(loc[-1], str) else "this"


def _as_written(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
