"""The contract tests for backends fail for a backend that breaks the contract."""

from __future__ import annotations

import random
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from dnp_guard.errors import VlmBadAnswer
from dnp_guard.testing import BackendContract

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image


class Good:
    """A backend that fulfils the contract: its answer depends on the picture's mean and the question's length."""

    name, revision = "good", "1"

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Any:
        means = [np.asarray(image.convert("RGB")).mean() / 255 for image in images]
        return [[mean / len(question) for question in questions] for mean in means]


class TestGood(BackendContract):
    @pytest.fixture
    def backend(self) -> Good:
        return Good()


def broken(change: Callable[[Any, Sequence[Any], Sequence[str]], Any]) -> Any:
    class Broken(Good):
        def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Any:
            return change(super().ask(images, questions), images, questions)

    return Broken()


def images() -> list[Image.Image]:
    return BackendContract.images.__wrapped__(BackendContract())  # type: ignore[attr-defined,no-any-return]


CALLS = count(1)


def drawing(answer: Any, *_: Any) -> Any:
    torch.rand(1)
    return answer


def drawing_python(answer: Any, *_: Any) -> Any:
    random.random()
    return answer


def drawing_numpy(answer: Any, *_: Any) -> Any:
    np.random.random()  # noqa: NPY002
    return answer


@pytest.mark.parametrize(
    ("change", "test"),
    [
        (lambda a, *_: [[value * 3 + 1 for value in row] for row in a], "answers_every_question"),
        (lambda a, *_: [row[:-1] for row in a], "answers_every_question"),
        (lambda a, i, _: [[value / len(i) for value in row] for row in a], "images_asked_about_together"),
        (lambda a, *_: a[::-1], "images_asked_about_together"),
        (lambda a, _, q: [[value / max(1, len(q)) for value in row] for row in a], "a_question_is_answered_the_same"),
        (lambda a, *_: [sorted(row) for row in a], "the_order_of_questions"),
        (lambda a, *_: [[value / next(CALLS) for value in row] for row in a], "the_same_question"),
        (lambda a, i, _: a or [[0.5]], "no_images"),
        (lambda a, _, q: a if q else [], "no_questions"),
        (drawing, "leaves_the_random_generators"),
        (drawing_python, "leaves_the_random_generators"),
        (drawing_numpy, "leaves_the_random_generators"),
        (lambda a, i, _: [image.paste("black", (0, 0, *image.size)) for image in i] and a, "leaves_the_pictures"),
    ],
)
def test_a_backend_that_breaks_a_clause_fails_its_test(change: Any, test: str) -> None:
    (name,) = (name for name in dir(BackendContract) if name.startswith(f"test_{test}"))
    takes_images = "images" in getattr(BackendContract, name).__code__.co_varnames[:3]
    arguments = (images(),) if takes_images else ()
    getattr(BackendContract(), name)(Good(), *arguments)
    with pytest.raises((AssertionError, VlmBadAnswer)):
        getattr(BackendContract(), name)(broken(change), *arguments)


def test_a_backend_that_cannot_open_a_mode_fails() -> None:
    def only_rgb(answer: Any, given: Sequence[Image.Image], _: Any) -> Any:
        assert all(image.mode == "RGB" for image in given)
        return answer

    with pytest.raises(AssertionError):
        BackendContract().test_takes_pictures_of_every_common_mode(broken(only_rgb), images(), "L")


def test_a_name_that_is_no_string_fails() -> None:
    backend = Good()
    backend.name = None  # type: ignore[assignment]
    with pytest.raises(AssertionError):
        BackendContract().test_says_who_it_is_in_strings(backend)
