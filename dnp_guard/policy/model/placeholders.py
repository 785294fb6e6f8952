"""Placeholders in policy text: only ``${name}``, and ``$$`` for a dollar sign."""

from __future__ import annotations

import re
from string import Template

TEMPLATE = ("title", "definition", "term")
ALLOWED_TEMPLATE = ("allowed",)
NEGATIVE = ("found",)


class _Placeholders(Template):
    idpattern = r"(?!)"  # refuse the unbraced form: a policy's dollar signs should be easy to read
    braceidpattern = r"[A-Za-z_][A-Za-z0-9_.-]*"
    flags = re.ASCII


def placeholders(text: str) -> tuple[str, ...]:
    """Return the names of a text's placeholders, in order, without repeats; a stray ``$`` gives the name ``"$"``."""
    names = [match["braced"] or "$" for match in _Placeholders.pattern.finditer(text) if match["escaped"] is None]
    return tuple(dict.fromkeys(names))


def render(text: str, **values: str) -> str:
    """Replace the placeholders of a text by their values; a placeholder within a value stays as it is.

    Args:
        text: a text whose placeholders are all among ``values``, as in a checked policy.
        values: the value of each placeholder, by its name.
    """
    return _Placeholders(text).substitute(values)
