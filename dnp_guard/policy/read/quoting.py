"""Find the end of a YAML value in quotes, brackets or braces, or the mistake that keeps it from ending."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOSING = {"[": "]", "{": "}"}
_NAMES = {"[": "bracket", "{": "brace", '"': "quote", "'": "quote"}
_BEGINS_KEY = re.compile(r"\s*(- +)?[a-z_]+:(\s|$)")
_ESCAPES = frozenset('0abt\tnvfre "/\\N_LPxuU\n')
_REST = re.compile(r"\s*(#.*)?$")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A value that does not end as it should.

    Attributes:
        line: line of the mistake, 0-based.
        column: column of the mistake, 0-based.
        message: description of the mistake.
        hint: how to mend it.
    """

    line: int
    column: int
    message: str
    hint: str


Place = tuple[int, int]
"""A line and a column, 0-based."""


def end_of_value(lines: Sequence[str], line: int, column: int, around: int) -> Place | Unfinished:
    """Find the end of a value that begins with a quote, a bracket or a brace.

    Args:
        lines: lines of the text.
        line: line where the value begins, 0-based.
        column: column where the value begins, 0-based.
        around: column of the value's key; a key at that column or left of it ends the value.

    Returns:
        The last line of the value and the column after it, or the mistake that keeps the value from ending.
    """
    first = lines[line][column]
    end = _quoted(lines, line, column, around) if first in "\"'" else _Brackets(lines, around).read(line, column)
    if isinstance(end, Unfinished):
        return end
    rest = lines[end[0]][end[1] :]
    if _REST.match(rest):
        return end
    after = end[1] + len(rest) - len(rest.lstrip())
    if rest.lstrip()[0] in "]}":
        return Unfinished(end[0], after, f"`{rest.lstrip()[0]}` closes nothing that was opened", "Delete it.")
    if rest.lstrip().startswith(":"):
        return end
    message = f"text after the closing {_NAMES[first]}"
    if first in "\"'":
        other = "'" if first == '"' else '"'
        hint = f"Put all of it in quotes; a quote within it may be `{other}`."
    else:
        hint = "End the line there, or put the whole text in quotes."
    return Unfinished(end[0], after, message, hint)


def _quoted(lines: Sequence[str], line: int, column: int, around: int) -> Place | Unfinished:
    """Return the position after the closing quote of the text that begins at a position, or the mistake in it."""
    quote, begun = lines[line][column], (line, column)
    column += 1
    while line < len(lines):
        text = lines[line]
        while column < len(text):
            character = text[column]
            if quote == '"' and character == "\\":
                if column + 1 < len(text) and text[column + 1] not in _ESCAPES:
                    shown = text[column : column + 2]
                    hint = f"Write `\\{shown}`, or use single quotes."
                    return Unfinished(line, column, f"`{shown}` means nothing within double quotes", hint)
                column += 2
            elif character == quote:
                if quote == "'" and text[column + 1 : column + 2] == "'":
                    column += 2
                    continue
                return line, column + 1
            else:
                column += 1
        line, column = line + 1, 0
        if line < len(lines) and _outside(lines[line], around):
            break
    return Unfinished(*begun, "this quote is not closed", f"End the text with `{quote}` on this line.")


def _outside(line: str, around: int) -> bool:
    """Return whether a line begins with a key at or left of a column."""
    return bool(_BEGINS_KEY.match(line)) and len(line) - len(line.lstrip(" ")) <= max(around, 0)


class _Brackets:
    """Reads nested lists in brackets and keys in braces.

    Args:
        lines: lines of the text.
        around: column of the key that the value belongs to.
    """

    def __init__(self, lines: Sequence[str], around: int) -> None:
        self._lines, self._around = lines, around
        self._opened: list[tuple[str, int, int]] = []
        self._begins = True  # whether an item may begin here

    def read(self, line: int, column: int) -> Place | Unfinished:
        """Return the position after the bracket that closes the one at a position, or a mistake before it."""
        while line < len(self._lines):
            while column < len(self._lines[line]) and not self._comment(line, column):
                fault = self._fault(line, column)
                if fault:
                    return fault
                after = self._take(line, column)
                if isinstance(after, Unfinished):
                    return after
                line, column = after
                if not self._opened:
                    return after
            line, column = line + 1, 0
            if line < len(self._lines) and _outside(self._lines[line], self._around):
                break
        bracket, begun, at = self._opened[-1]
        return Unfinished(begun, at, f"this {_NAMES[bracket]} is not closed", f"End it with `{_CLOSING[bracket]}`.")

    def _comment(self, line: int, column: int) -> bool:
        text = self._lines[line]
        return text[column] == "#" and text[max(0, column - 1) : column] in {"", " ", "\t"}

    def _fault(self, line: int, column: int) -> Unfinished | None:
        """Return the mistake that a character makes, such as a comma without an item before it; None if it is valid."""
        text = self._lines[line]
        character = text[column]
        if character == "{" and text[column - 1 : column] == "$":
            return Unfinished(line, column - 1, "`${` without quotes", 'Put it in quotes: "${found}".')
        if character in "]}" and character != (due := _CLOSING[self._opened[-1][0]]):
            return Unfinished(line, column, f"`{character}` where `{due}` is due", f"Write `{due}`.")
        if character == "," and self._begins:
            return Unfinished(line, column, "a comma without an item before it", "Delete one comma.")
        return None

    def _take(self, line: int, column: int) -> Place | Unfinished:
        """Read the character, or the text in quotes, at a position; return the position after it, or a mistake."""
        character = self._lines[line][column]
        if character in "\"'" and self._begins:
            end = _quoted(self._lines, line, column, self._around)
            if not isinstance(end, Unfinished):
                self._begins = False
                if after := re.match(r"\s*([^\s,\]}:#])", self._lines[end[0]][end[1] :]):
                    place = end[1] + after.start(1)
                    return Unfinished(end[0], place, "no comma between two items", "Put a comma between them.")
            return end
        if character in _CLOSING:
            self._opened.append((character, line, column))
        elif character in "]}":
            self._opened.pop()
        if character in ",[{:":
            self._begins = True
        elif not character.isspace():
            self._begins = False
        return line, column + 1
