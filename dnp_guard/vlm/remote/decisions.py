"""Typed-decision endpoints: they answer yes/no questions with a probability per question, and generate no text.

There are two forms. ``/v1/systemone`` (``transformers serve``, SGLang) takes a map of questions about a state;
``/v1/decisions`` (OpenAI's API, SGLang) takes a list. A request is about one picture.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import VlmBadAnswer, VlmError
from dnp_guard.vlm.picture import data_url
from dnp_guard.vlm.remote.backend import TRIAL_QUESTION, RemoteBackend, member, trial_picture, untried

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MOST_QUESTIONS = 64
"""Most questions per request that the endpoints allow."""


class _TypedDecisions(RemoteBackend):
    path: str

    def __init__(self, model: str, urls: Sequence[str], **options: Any) -> None:
        """Make the backend, and send it one trial question.

        Raises:
            VlmUnavailable: the server does not answer the trial.
        """
        super().__init__(model, urls, **options)
        try:
            self.ask([trial_picture()], [TRIAL_QUESTION])
        except VlmError as error:
            self.close()
            raise untried(model, error) from error

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Return the probability of "yes", shape [images, questions]; see :class:`~dnp_guard.vlm.base.Backend`."""
        if not images or not questions:
            return [[] for _ in images]
        parts = [questions[start : start + MOST_QUESTIONS] for start in range(0, len(questions), MOST_QUESTIONS)]
        pictures = [data_url(image) for image in images]
        bodies = [{"model": self.name, **self._body(picture, part)} for picture in pictures for part in parts]
        answers = iter(self._transport.post(self.path, bodies))
        return [[p for part in parts for p in self._row(next(answers), len(part))] for _ in pictures]

    def _row(self, answer: Any, expected: int) -> list[float]:
        model = answer.get("model") if isinstance(answer, dict) else None
        if isinstance(model, str) and model and model != self.name:
            self.revision = model
        return self._probabilities(answer, expected)

    def _body(self, picture: str, questions: Sequence[str]) -> dict[str, Any]:
        raise NotImplementedError

    def _probabilities(self, answer: Any, expected: int) -> list[float]:
        raise NotImplementedError


class SystemOneBackend(_TypedDecisions):
    """``systemone:MODEL@URL``: the System One API, ``/v1/systemone``."""

    path = "/systemone"

    def _body(self, picture: str, questions: Sequence[str]) -> dict[str, Any]:
        # The server inserts the picture wherever this name occurs, so no question may contain it.
        names = (f"<picture-{number}>" for number in count())
        name = next(name for name in names if not any(name in question for question in questions))
        return {
            "state": name,
            "assets": {name: {"data_base64": picture}},
            "questions": {f"q{i}": {"type": "noul", "instructions": text} for i, text in enumerate(questions)},
        }

    def _probabilities(self, answer: Any, expected: int) -> list[float]:
        answers = member(answer, dict, "answers")
        _require({f"q{i}" for i in range(expected)} == set(answers), f"{len(answers)} answers to other questions")
        return [_p(member(answers, dict, f"q{i}"), "noul", "noul") for i in range(expected)]


class DecisionsBackend(_TypedDecisions):
    """``decisions:MODEL@URL``: the Decisions API, ``/v1/decisions``."""

    path = "/decisions"

    def _body(self, picture: str, questions: Sequence[str]) -> dict[str, Any]:
        content = [{"type": "input_image", "image_url": picture}]
        return {
            "input": [{"type": "message", "role": "user", "content": content}],
            "questions": [
                {"type": "predicate", "name": f"q{i}", "instructions": text} for i, text in enumerate(questions)
            ],
        }

    def _probabilities(self, answer: Any, expected: int) -> list[float]:
        answers = member(answer, list, "answers")
        _require(len(answers) == expected, f"{len(answers)} answers to {expected} questions")
        for i, item in enumerate(answers):
            _require(member(item, str, "name") == f"q{i}", f"an answer to another question where q{i} belongs")
            _require(item.get("type") != "refusal", f"a refusal to answer question {i}")
        return [_p(item, "predicate", "probability") for item in answers]


def _p(answer: dict[str, Any], kind: str, key: str) -> float:
    _require(answer.get("type") == kind, f"an answer of another type than {kind!r}")
    value = answer.get(key)
    _require(isinstance(value, int | float) and not isinstance(value, bool), f"no number as {key!r}")
    return float(value)  # type: ignore[arg-type]  # checked just before


def _require(fine: bool, answers: str) -> None:  # noqa: FBT001 (the condition)
    if not fine:
        raise VlmBadAnswer(f"the server gave {answers}", hint="Check the server, and the kind in the spec.")
