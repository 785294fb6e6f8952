from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.errors import VlmBadAnswer
from dnp_guard.vlm.answers import probabilities

ROWS = [[0.25, 0.5], [0.0, 1.0], [0.75, 0.125]]


@pytest.mark.parametrize(
    "answer",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        np.array(ROWS),
        np.array(ROWS, dtype=np.float16),
        torch.tensor(ROWS),
        torch.tensor(ROWS, dtype=torch.bfloat16, requires_grad=True),
        [np.array(row) for row in ROWS],
        [torch.tensor(row) for row in ROWS],
        [[np.float32(value) for value in row] for row in ROWS],
        [[torch.tensor(value) for value in row] for row in ROWS],
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_nested_sequences_arrays_and_tensors_become_plain_floats(answer: object) -> None:
    rows = probabilities(answer, 3, 2)
    assert rows == tuple(map(tuple, ROWS))
    assert {type(value) for row in rows for value in row} == {float}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        0.5,
        "ab",
        b"ab",
        {"a": 1},
        [],
        [[0.5, 0.5]],
        [[0.5, 0.5], [0.5]],
        [[0.5, 0.5], 0.5],
        [[0.5, 0.5], "ab"],
        [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]],
        np.zeros((2, 3)),
        np.zeros(2),
        torch.zeros(()),
    ],
    ids=repr,
)
def test_another_shape_is_a_bad_answer(answer: object) -> None:
    with pytest.raises(VlmBadAnswer):
        probabilities(answer, 2, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01, "0.5", None, 0.5 + 0j, [0.5]], ids=repr)
def test_what_is_not_a_probability_is_a_bad_answer_at_its_place(value: object) -> None:
    with pytest.raises(VlmBadAnswer, match="image 1, question 0"):
        probabilities([[0.5, 0.5], [value, 0.5]], 2, 2)


def test_the_rounding_of_a_float32_sum_is_forgiven() -> None:
    assert probabilities([[1 + 5e-7, -5e-7]], 1, 2) == ((1.0, 0.0),)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), max_size=4))
def test_probabilities_pass_unchanged(rows: list[list[float]]) -> None:
    assert probabilities(rows, len(rows), 3) == tuple(map(tuple, rows))


@given(st.floats(allow_nan=True, allow_infinity=True).filter(lambda value: not -1e-6 <= value <= 1 + 1e-6))
def test_no_other_float_passes(value: float) -> None:
    with pytest.raises(VlmBadAnswer):
        probabilities([[value]], 1, 1)
