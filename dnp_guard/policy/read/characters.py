"""From bytes to text: size, encoding, and characters that could hide what a policy says."""

from __future__ import annotations

import re
from itertools import islice

from dnp_guard.errors import PolicyError, Problem

MAX_BYTES = 256 * 1024
MAX_SHOWN = 20

HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls, but for tab and line ends
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069"  # text direction, invisible breaks
    "\u2060-\u2064\ufeff\ufff9-\uffff\ud800-\udfff\U000e0000-\U000e007f]"  # joiners, non-characters, tags
)


def name_of(character: str) -> str:
    """How to speak of a character that cannot be shown."""
    return f"U+{ord(character):04X}"


def decode(raw: bytes, file: str) -> str:
    """Decode the bytes of a policy file.

    Raises:
        PolicyError: too large, empty, not UTF-8, or with characters that do not show.
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
