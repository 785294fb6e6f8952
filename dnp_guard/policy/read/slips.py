"""Typing slips within one line of a policy: a missing colon, an unusual space, a typeset quote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.errors import nearest
from dnp_guard.policy.model.keys import KEYS
from dnp_guard.policy.read.document import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
"""Characters that look like an ordinary space."""

SMART_QUOTES = "“”„‟«»‘’‚‹›「」"  # noqa: RUF001 (the quotes meant)

KNOWN = frozenset(name for names in KEYS.values() for name in names)
"""Every key of the policy language."""

KEY = re.compile(r"""(?P<name>"[^"]*"|'[^']*'|[^\s:#,\[\]{}"'&*!|>%@`-][^:#]*?)[ ]*:(?=\s|$)""")
"""Matches a key with its colon."""

_NO_SPACE = re.compile(r"([A-Za-z_]+) ?:(\S.*)$")
_NO_COLON = re.compile(r"([A-Za-z_]+)(?: *[=→;] *|[ ]+)(\S.*)$")
_LIKE_A_VALUE = re.compile(r"[\d.\[{\"'-]|(\w+)$|=")
_BULLETS = "*•·–—+"
_SPECIAL = "@`%,"


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistyped place in a line.

    Attributes:
        column: column of the mistake, 0-based.
        message: description of the mistake.
        hint: how to mend it.
        line: line of the mistake, 0-based; None for the line that is being read.
    """

    column: int
    message: str
    hint: str
    line: int | None = None


def bare(text: str) -> str:
    """Return a text without its trailing comment."""
    return re.split(r"\s#", text, maxsplit=1)[0].rstrip()


def fault_of_space(match: re.Match[str]) -> Fault:
    """Describe the mistake of a matched space character that is not the ordinary one, such as a no-break space."""
    return strange_space(match[0], match.start())


def strange_space(character: str, column: int) -> Fault:
    """Describe the mistake of a space character at a column that is not the ordinary one."""
    message = f"a space that is not the ordinary one (U+{ord(character):04X})"
    return Fault(column, message, "Delete it and type an ordinary space.")


def bad_dash(rest: str, column: int) -> Fault | None:
    """Find a mistake in the dash of a list item: no space after it, or another character in its place."""
    if match := re.match(r"-(\s)", rest):
        if match[1] == "\t":
            return Fault(column + 1, "a tab after the dash", "Use a space in its place.")
        if match[1] != " ":
            return strange_space(match[1], column + 1)
    if re.match(r"-[A-Za-z{\[\"']", rest):
        return Fault(column, "there is no space after the dash", f"Write `- {shorten(rest[1:])}`.")
    if rest[0] in _BULLETS and rest[1:2] == " ":
        message = f"`{rest[0]}` is not a dash: an item of a list begins with `-`"
        return Fault(column, message, f"Write `- {shorten(rest[1:].strip())}`.")
    return None


def bad_plain(text: str, start: int, key: str) -> Fault | None:
    """Find a mistake in a text without quotes on one line, such as a second colon.

    Args:
        text: the line from the beginning of the text.
        start: column of the text.
        key: key of the text; empty for an item of a list.
    """
    plain = bare(text)
    if not plain:
        return None
    quoted = '"{}"'.format(plain.replace('"', "'"))
    hint = f"Put the text in quotes: `{shorten(f'{key}: {quoted}' if key else quoted)}`."
    fault = None
    if plain[0] in _SPECIAL:
        fault = Fault(start, f"a text without quotes may not begin with `{plain[0]}`", hint)
    elif plain[0] in "]}":
        fault = Fault(start, f"`{plain[0]}` closes nothing that was opened", "Delete it, or open it on this line.")
    elif plain.startswith("- "):
        fault = Fault(start, "a list begins on the line of its key", "Write each `- item` on a line of its own.")
    elif match := re.search(r":(?=\s|$)", plain):
        before = re.search(r"(\w+)$", plain[: match.start()])
        fault = Fault(start + match.start(), "a second colon on this line", hint)
        if before and before[1] in KNOWN:
            message = f"a second key, `{before[1]}`, on this line"
            fault = Fault(start + before.start(), message, "Write it on a line of its own.")
    elif "\t" in plain:
        fault = Fault(start + plain.index("\t"), "a tab in the text", "Use a space in its place.")
    return fault


def no_colon(rest: str, column: int, *, item: bool) -> Fault | None:
    """Find a key without its colon, or without the space after the colon.

    Args:
        rest: rest of the line, which may begin with the key.
        column: column at which the rest begins.
        item: whether a dash precedes the rest, so that it is a plain text if it has no colon.
    """
    key = key_of(rest)
    if key is None or (item and not key[2]):
        return None
    name, value, colon = key
    missing = "space after the colon" if colon else "colon"
    spelt = name if name in KNOWN else nearest(name, sorted(KNOWN)) or name
    return Fault(column, f"there is no {missing} of `{name}`", f"Write `{shorten(f'{spelt}: {value}')}`.")


def key_of(text: str) -> tuple[str, str, bool] | None:
    """Split a mistyped ``key value`` or ``key:value`` into name, value and whether it has a colon; None if neither."""
    plain = bare(text).strip()
    for pattern, colon in ((_NO_SPACE, True), (_NO_COLON, False)):
        match = pattern.match(plain)
        spelt = match and (match[1] in KNOWN or nearest(match[1], sorted(KNOWN)))
        if match and spelt and (colon or _LIKE_A_VALUE.match(match[2])):
            return match[1], match[2].strip(), colon
    return (plain, "…", False) if plain in KNOWN else None


def continued(text: str) -> tuple[str, str] | None:
    """Return the key and value of a line that the parser took for a continuation of text; None if it has no key."""
    if match := KEY.match(text):
        name = match["name"]
        return (name, text[match.end() :].strip()) if name in KNOWN else None
    key = key_of(text)
    return key[:2] if key and key[0] in KNOWN else None


def bad_text(value: str, line: int, column: int) -> Fault | None:
    """Find a mistake in a text without quotes as the parser read it: typeset quotes, or a quote that closes nothing.

    Args:
        value: the text.
        line: line where it begins, 0-based.
        column: column where it begins, 0-based.
    """
    if value[0] in SMART_QUOTES and value[-1] in SMART_QUOTES:
        hint = f'Write `"{shorten(value[1:-1])}"`.'
        return Fault(column, "typeset quotes are part of the text", hint, line)
    if value.endswith('"') and value.count('"') % 2:
        hint = f'Write `"{shorten(value[:-1])}"`.'
        return Fault(column + len(value) - 1, "this quote closes nothing that was opened", hint, line)
    return None


def bad_continuation(first: str, further: Sequence[str], line: int, column: int) -> Fault | None:
    """Find a key or a list item that the parser took for a continuation of the text above it.

    Args:
        first: first line of the text, from the beginning of the text.
        further: lines that continue it.
        line: number of the first line, 0-based.
        column: column where the text begins, 0-based.
    """
    if re.match(r"-[A-Za-z]", first):
        return Fault(column, "there is no space after the dash", f"Write `- {shorten(bare(first)[1:])}`.", line)
    for number, text in enumerate(further, line + 1):
        stripped = text.strip()
        begin = len(text) - len(text.lstrip())
        if (key := continued(stripped)) and (fault := no_colon(first, column, item=False)):
            return Fault(column, fault.message, fault.hint, line)
        if key:
            message = f"`{shorten(stripped)}` is read as a continuation of the text above"
            hint = f"Write `{key[0]}: {shorten(key[1])}`, and begin it where the key above begins."
            return Fault(begin, message, hint, number)
        if stripped.startswith("- "):
            message = f"`{shorten(stripped)}` is read as a continuation of the text above"
            return Fault(begin, message, "Begin each item of the list, the first too, with `- `.", number)
    return None
