"""Check what a backend returned: the number of rows and columns, and that every value is a probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from dnp_guard.errors import VlmBadAnswer

Probabilities = tuple[tuple[float, ...], ...]
"""Shape [images, questions]."""

_ROUNDING = 1e-6
"""How far outside 0…1 a sum of float32 probabilities may be."""


def probabilities(answer: object, images: int, questions: int) -> Probabilities:
    """Turn a backend's answer into plain floats.

    Args:
        answer: nested sequences, a NumPy array, a torch tensor, or a sequence of either.
        images: expected number of rows.
        questions: expected number of columns.

    Returns:
        The probabilities, 0…1, shape [images, questions].

    Raises:
        VlmBadAnswer: the shape differs, or a value is not a probability.
    """
    rows = _items(answer, images, "rows, one for each image,")
    return tuple(
        tuple(
            _probability(value, f"image {i}, question {j}")
            for j, value in enumerate(_items(row, questions, f"answers to the questions about image {i}"))
        )
        for i, row in enumerate(rows)
    )


def _items(value: Any, expected: int, what: str) -> Sequence[Any]:
    # NumPy arrays and torch tensors both have tolist(), so neither package has to be imported.
    items = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes, bytearray)):
        raise VlmBadAnswer(f"the backend returned {type(value).__name__} where {expected} {what} belong", hint=_HINT)
    if len(items) != expected:
        raise VlmBadAnswer(f"the backend returned {len(items)} {what} instead of {expected}", hint=_HINT)
    return items


def _probability(value: Any, where: str) -> float:
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, Real):
        raise VlmBadAnswer(f"{where}: {type(value).__name__} is not a probability", hint=_HINT)
    p = float(number)
    if not math.isfinite(p) or not -_ROUNDING <= p <= 1 + _ROUNDING:
        raise VlmBadAnswer(f"{where}: {p} is not a probability", hint=_HINT)
    return min(max(p, 0.0), 1.0)


_HINT = "ask(images, questions) must return probabilities 0…1, shape [len(images), len(questions)]."
