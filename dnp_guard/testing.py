"""Test suite for vision-language backends that others write; it needs pytest."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dnp_guard.vlm.answers import probabilities
from dnp_guard.vlm.base import Query, as_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Asked


class BackendContract:
    """Tests that every vision-language backend must pass. Subclass it and override the ``backend`` fixture.

    Example::

        @pytest.fixture(scope="module")
        def mine():
            return MyBackend()

        class TestMine(BackendContract):
            @pytest.fixture
            def backend(self, mine):
                return mine

    Attributes:
        questions: questions to ask; choose some that the backend answers differently.
        tolerance: largest difference between probabilities that must be equal. Half precision may need more.
    """

    questions: Sequence[str] = (
        "Is there a star in this image?",
        "Is there a skull in this image? (A drawn skull.)",
        "Is there a circle in this image?",
    )
    tolerance: float = 1e-4

    @pytest.fixture
    def backend(self) -> Asked:
        """Return the backend under test."""
        raise NotImplementedError("override the backend fixture")

    @pytest.fixture
    def images(self) -> list[Image.Image]:
        """Return three different RGB pictures, of different brightness."""
        rng = np.random.default_rng(7)
        noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        dusk = Image.linear_gradient("L").resize((32, 32)).point(lambda value: value // 4)
        return [noise, Image.new("RGB", (32, 32), (230, 40, 30)), dusk.convert("RGB")]

    def _ask(self, backend: Asked, images: Sequence[Image.Image], questions: Sequence[str]) -> Probabilities:
        return probabilities(backend.ask(images, questions), len(images), len(questions))

    def test_is_a_backend(self, backend: Asked) -> None:
        """Check that the object has the method ``ask``."""
        assert as_backend(backend)

    def test_a_query_is_answered_as_its_questions_are(self, backend: Asked, images: list[Image.Image]) -> None:
        """Check that ``put``, which the guard calls, answers a query like ``ask``."""
        query = Query(tuple(images), tuple(self.questions))
        answer = probabilities(as_backend(backend).put(query), len(images), len(self.questions))
        np.testing.assert_allclose(answer, self._ask(backend, images, self.questions), rtol=0, atol=self.tolerance)

    def test_answers_every_question_about_every_image_with_a_probability(
        self, backend: Asked, images: list[Image.Image]
    ) -> None:
        """Check that the answers have the shape [images, questions] and values from 0 to 1."""
        answer = self._ask(backend, images, self.questions)
        assert [len(row) for row in answer] == [len(self.questions)] * len(images)

    def test_images_asked_about_together_get_the_answers_they_get_alone(
        self, backend: Asked, images: list[Image.Image]
    ) -> None:
        """Check that the content of one image does not affect the answers about another."""
        together = self._ask(backend, images, self.questions)
        alone = tuple(self._ask(backend, [image], self.questions)[0] for image in images)
        np.testing.assert_allclose(together, alone, rtol=0, atol=self.tolerance)

    def test_a_question_is_answered_the_same_whatever_else_is_asked(
        self, backend: Asked, images: list[Image.Image]
    ) -> None:
        """Check that the answer to a question does not depend on the other questions."""
        together = np.array(self._ask(backend, images, self.questions))
        alone = np.hstack([self._ask(backend, images, [question]) for question in self.questions])
        np.testing.assert_allclose(together, alone, rtol=0, atol=self.tolerance)

    def test_the_order_of_questions_does_not_matter(self, backend: Asked, images: list[Image.Image]) -> None:
        """Check that the answers are in the order of the questions."""
        forward = np.array(self._ask(backend, images, self.questions))
        backward = np.array(self._ask(backend, images, self.questions[::-1]))
        np.testing.assert_allclose(forward, backward[:, ::-1], rtol=0, atol=self.tolerance)

    def test_the_same_question_about_the_same_image_has_the_same_answer(
        self, backend: Asked, images: list[Image.Image]
    ) -> None:
        """Check that the same query gets the same answers twice."""
        first = self._ask(backend, images, self.questions)
        second = self._ask(backend, images, self.questions)
        np.testing.assert_allclose(first, second, rtol=0, atol=self.tolerance)

    def test_no_images_give_no_rows(self, backend: Asked) -> None:
        """Check that a query of no images has no rows of answers."""
        assert self._ask(backend, [], self.questions) == ()

    def test_no_questions_give_empty_rows(self, backend: Asked, images: list[Image.Image]) -> None:
        """Check that a query without questions has an empty row per image."""
        assert self._ask(backend, images, []) == ((),) * len(images)

    def test_leaves_the_random_generators_alone(self, backend: Asked, images: list[Image.Image]) -> None:
        """Check that a query draws no number from the global random generators, which would change the image."""
        before = _random_states()
        self._ask(backend, images, self.questions)
        assert _random_states() == before

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
    def test_takes_pictures_of_every_common_mode(self, backend: Asked, images: list[Image.Image], mode: str) -> None:
        """Check that pictures of several modes are accepted, since hosts pass pictures as they have them."""
        picture = images[0].convert(mode)
        assert len(self._ask(backend, [picture], self.questions)) == 1

    @pytest.mark.parametrize("size", [(8, 8), (33, 17), (16, 96), (512, 512)])
    def test_takes_pictures_of_every_size(
        self, backend: Asked, images: list[Image.Image], size: tuple[int, int]
    ) -> None:
        """Check that pictures of several sizes are accepted: previews are small, and images may not be square."""
        assert len(self._ask(backend, [images[0].resize(size)], self.questions)) == 1

    def test_takes_pictures_of_different_sizes_together(self, backend: Asked, images: list[Image.Image]) -> None:
        """Check that pictures of different sizes get the same answers in one query as in queries of their own."""
        pictures = [images[0].resize((40, 20)), images[1].resize((16, 64))]
        together = self._ask(backend, pictures, self.questions)
        alone = tuple(self._ask(backend, [picture], self.questions)[0] for picture in pictures)
        np.testing.assert_allclose(together, alone, rtol=0, atol=self.tolerance)

    def test_leaves_the_pictures_alone(self, backend: Asked, images: list[Image.Image]) -> None:
        """Check that a query does not change the pictures, which the caller continues to use."""
        before = [image.tobytes() for image in images]
        self._ask(backend, images, self.questions)
        assert [image.tobytes() for image in images] == before

    def test_says_who_it_is_in_strings(self, backend: Asked) -> None:
        """Check that the name and the revision are strings, as the audit record needs them."""
        of = as_backend(backend)
        assert all(isinstance(value, str) for value in (of.name, of.revision))
        assert of.info.name
        assert of.revision

    def test_says_what_it_takes_and_where_images_go(self, backend: Asked) -> None:
        """Check the types of the attributes by which policies admit a backend and the guard batches its queries."""
        of = as_backend(backend)
        assert all(isinstance(value, bool) for value in (of.local, of.batches))
        assert all(isinstance(url, str) for url in of.addresses)
        assert of.answers in {"probabilities", "text"}
        assert of.at_once >= 1


def _random_states() -> tuple[object, ...]:
    legacy = repr(np.random.get_state(legacy=False))  # noqa: NPY002 (this checks the global generator)
    try:
        import torch  # noqa: PLC0415 (a backend need not have it)
    except ImportError:
        return random.getstate(), legacy
    cuda = tuple(state.tolist() for state in torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
    return random.getstate(), legacy, torch.get_rng_state().tolist(), cuda
