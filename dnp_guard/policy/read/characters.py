"""Decode a policy file: check its size, its encoding, and characters that could hide its meaning."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice

from dnp_guard.errors import PolicyError, Problem

MAX_BYTES = 256 * 1024
MAX_SHOWN = 20

_JOINED_SCRIPTS = frozenset({"LATIN", "GREEK", "CYRILLIC", "DIGIT"})
"""Scripts that never use an invisible character to join or separate letters."""

_LOOKALIKE_SCRIPTS = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE"})
"""Scripts that share the shapes of many letters."""

_LOOKALIKES = dict(
    zip(
        "аеорсухіјѕԁɡһӏνοραΑΒΕΖΗΙΚΜΝΟΡΤΥΧАВЕКМНОРСТХІЈЅ",  # noqa: RUF001 (the letters meant)
        "aeopcyxijsdghlvopaABEZHIKMNOPTYXABEKMHOPCTXIJS",
        strict=True,
    )
)
"""Letters of other scripts, and the Latin letters that look like them."""

JOINERS = re.compile("[\u034f\u200c\u200d\ufe00-\ufe0f]")
"""Characters that join or separate letters: part of some scripts and of emoji, hidden in other scripts."""

WORD = re.compile(r"[^\W\d_]+")

HIDDEN = re.compile(
    "[\u00ad\u115f\u1160\u17b4\u17b5\u180b-\u180e\u3164\uffa0"  # soft hyphens, fillers
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls except tab and line ends
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069"  # text direction, invisible breaks
    "\u2060-\u2064\ufeff\ufff9-\uffff\ud800-\udfff\U000e0000-\U000e007f]"  # joiners, non-characters, tags
)


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A part of a text that is not what it looks like.

    Attributes:
        text: the part itself.
        code: stable kebab-case name of the kind of problem.
        message: description of the problem.
        hint: how to mend it.
    """

    text: str
    code: str
    message: str
    hint: str


def doubtful(text: str) -> Doubtful | None:
    """Find the first misleading part of a text: an invisible joiner between letters, or a word in two scripts."""
    for match in JOINERS.finditer(text):
        around = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
        if around and all(_script(character) in _JOINED_SCRIPTS or character.isspace() for character in around):
            message = f"character {name_of(match[0])} does not show"
            return Doubtful(match[0], "hidden-character", message, "Delete it.")
    for match in WORD.finditer(text):
        scripts = dict.fromkeys(_script(letter) for letter in match[0])
        if len(_LOOKALIKE_SCRIPTS.intersection(scripts)) > 1:
            strange = [letter for letter in match[0] if letter in _LOOKALIKES]
            alike = f": {name_of(strange[0])} looks like `{_LOOKALIKES[strange[0]]}`" if strange else ""
            names = " and ".join(script.capitalize() for script in scripts)
            message = f"`{match[0]}` mixes {names} letters{alike}"
            return Doubtful(match[0], "mixed-scripts", message, "Type the word again.")
    return None


def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0]


def name_of(character: str) -> str:
    """Return the code point of a character, such as ``U+200B``, to name it in a message."""
    return f"U+{ord(character):04X}"


def decode(raw: bytes, file: str) -> str:
    """Decode the bytes of a policy file.

    Raises:
        PolicyError: the file is too large, empty, not UTF-8, or has invisible characters.
    """
    if len(raw) > MAX_BYTES:
        raise PolicyError([Problem(file, 0, 0, "too-large", f"over {MAX_BYTES // 1024} KiB.", "Split the policy.")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(
            file, line, column, "not-utf8", f"byte 0x{raw[error.start]:02X} is not UTF-8.", "Save the file as UTF-8."
        )
        raise PolicyError([problem]) from None
    if problems := [_hidden(file, text, match) for match in islice(HIDDEN.finditer(text), MAX_SHOWN)]:
        raise PolicyError(problems)
    if not text.strip():
        raise PolicyError([Problem(file, 1, 1, "empty-file", "the file is empty.", "Begin with `format: 1`.")])
    return text


def _hidden(file: str, text: str, match: re.Match[str]) -> Problem:
    before = text[: match.start()]
    line, column = before.count("\n") + 1, match.start() - before.rfind("\n")
    return Problem(
        file, line, column, "hidden-character", f"character {name_of(match[0])} does not show.", "Delete it."
    )
