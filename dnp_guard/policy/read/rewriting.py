"""Suggest a replacement for a value that does not fit its key, from what its author most likely meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNQUOTE = "Leave out the quotes."
_NUMBER = re.compile(r"\d+(\.\d+)?")
_LEADING = re.compile(r"[-+~<>=≥≤]* *(\d*[.,]?\d+)")
_SWITCHES = {
    **dict.fromkeys(("yes", "y", "on", "1", "true", "enabled", "always"), "true"),
    **dict.fromkeys(("no", "n", "off", "0", "false", "disabled", "never", "none"), "false"),
}
_WORDS = {
    "critical": ("severe", "extreme", "highest", "maximum"),
    "high": ("major", "serious"),
    "medium": ("moderate", "mid", "middle", "normal"),
    "low": ("minor", "mild"),
    "monitor": ("log", "record", "warn", "allow", "report", "observe", "flag", "audit", "none"),
    "block": ("refuse", "reject", "deny", "withhold", "stop", "remove"),
    "blur": ("pixelate", "mask", "obscure"),
    "steer": ("guide", "negative", "redirect", "avoid"),
    "shadow": ("dry-run", "dryrun", "test", "log", "off", "monitor", "report", "audit"),
    "enforce": ("on", "live", "active", "prod", "production", "block"),
    "closed": ("block", "fail_closed", "deny", "withhold"),
    "open": ("allow", "pass", "fail_open"),
}
"""Words that people write in place of a value of the policy language."""

UNIT_KEYS = frozenset(
    {"threshold", "final_threshold", "allowed_threshold", "value", "from", "to", "skip_similar", "below", "max_miss"}
    | {"mask", "steps"}
)
"""Keys with a number from 0 to 1, so that 50 probably means 0.5."""

_PERCENT = 100.0
_FEW_PERCENT = 2.0


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that does not fit its key.

    Attributes:
        kind: pydantic's error type.
        value: value as read.
        shown: value as written, shortened.
        key: nearest key above the value.
        expected: the values that the key accepts, in words.
        options: the values that the key accepts, if few.
    """

    kind: str
    value: object
    shown: str
    key: str
    expected: str
    options: Sequence[str] = ()


def rewritten(misfit: Misfit, names: Sequence[str] = ()) -> str:
    """Return the hint for a value that does not fit its key; empty if there is no suggestion.

    Args:
        misfit: the value.
        names: ids of categories that the value may name.
    """
    if misfit.kind == "string_pattern_mismatch":
        return _name(str(misfit.value), misfit.key, names)
    write = _WRITERS.get(misfit.kind)
    return write(misfit) if write else ""


def _option(misfit: Misfit) -> str:
    if misfit.value in misfit.options:
        return _UNQUOTE
    if best := nearest(str(misfit.value), misfit.options):
        return f"Did you mean `{best}`?"
    word = str(misfit.value).lower()
    meant = next((option for option in misfit.options if word in _WORDS.get(option, ())), None)
    if meant or len(misfit.options) == 1:
        return f"Write `{meant or misfit.options[0]}`."
    return "Write one of these."


def _switch(misfit: Misfit) -> str:
    word = _SWITCHES.get(str(misfit.value).lower())
    return f"Write `{word}`." if word else "Write `true` or `false`."


def _number(misfit: Misfit) -> str:
    value, whole = misfit.value, "whole" in misfit.expected and misfit.kind != "step_type"
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return _UNQUOTE
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_number(value, misfit, whole=whole)
    text = value.strip().replace("O", "0").replace("o", "0") if isinstance(value, str) else ""
    if match := _LEADING.match(text):
        number = float(match[1].replace(",", "."))
        if "%" in text or _is_percent(number, misfit):
            number /= 1 if whole else _PERCENT
        return f"Write `{_written(number, whole=whole)}`."
    return f"Write a number, such as `{'0.5' if misfit.key in UNIT_KEYS else '15'}`."


def _from_number(number: float, misfit: Misfit, *, whole: bool) -> str:
    if whole and number >= 1 and number == round(number) and misfit.kind == "int_type":
        return f"Write `{round(number)}`."
    if _is_percent(number, misfit):
        return f"Write `{_written(number / _PERCENT, whole=False)}`."
    if misfit.key in UNIT_KEYS and -1 <= number < 0:
        return f"Write `{_written(-number, whole=False)}`."
    return f"Write {misfit.expected}."


def _is_percent(number: float, misfit: Misfit) -> bool:
    return misfit.key in UNIT_KEYS and _FEW_PERCENT <= number <= _PERCENT


def _written(number: float, *, whole: bool) -> str:
    return str(round(number)) if whole else f"{number:g}"


def _text(misfit: Misfit) -> str:
    if isinstance(misfit.value, list):
        texts = [item for item in misfit.value if isinstance(item, str)]
        return f"Write `{misfit.key}: {texts[0]}`." if len(texts) == 1 else "Write one text, without brackets."
    if isinstance(misfit.value, dict):
        return "Put the text in quotes."
    return f'Put it in quotes: `"{misfit.shown}"`.'


def _name(text: str, key: str, names: Sequence[str]) -> str:
    if best := nearest(text.strip().replace(" ", "_"), names):
        return f"Did you mean `{best}`?"
    if key == "allow":
        return "Write `local`, or the address with https:// before it."
    made = re.sub(r"[^a-z0-9_-]+", "_", text.strip().lower()).strip("_-")
    made = made if not made or made[0].isalpha() else f"c{made}"
    return f"Write `{made[:64]}`." if made else ""


def _list(misfit: Misfit) -> str:
    if isinstance(misfit.value, str) and misfit.value.strip():
        items = [part for part in (item.strip(" []()\"'") for item in misfit.value.split(",")) if part]
        return f"Write `{misfit.key}: [{', '.join(items)}]`."
    if isinstance(misfit.value, int | float) and not isinstance(misfit.value, bool):
        return f"Write `[{misfit.shown}]`."
    return "Begin each item with a dash: `- `."


def _keys(misfit: Misfit) -> str:
    return f"Write keys below `{misfit.key}:`, each on a line of its own."


def _something(misfit: Misfit) -> str:
    return f"Put something into `{misfit.key}`, or leave it out."


_WRITERS = {
    **dict.fromkeys(("float_type", "int_type", "step_type", "finite_number"), _number),
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), _number),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _keys),
    "literal_error": _option,
    "bool_type": _switch,
    "string_type": _text,
    "tuple_type": _list,
    "too_short": _something,
}
