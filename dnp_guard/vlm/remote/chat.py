"""Chat-completion endpoints: one request per image and question, answered by "yes" or "no".

A trial at construction finds the best mode that the server supports: log probabilities of the answer's first token,
from which a probability is computed; an answer that follows a JSON schema; or plain text, which is read strictly. The
last two give yes or no, and nothing in between.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

from dnp_guard.errors import VlmBadAnswer, VlmError
from dnp_guard.vlm.picture import data_url
from dnp_guard.vlm.remote.backend import TRIAL_QUESTION, RemoteBackend, member, trial_picture, untried
from dnp_guard.vlm.remote.transport import Refused
from dnp_guard.vlm.worded_answers import Noise, noise, yes_or_no

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_MOST = 0.5
"""Least probability that the two answers must have together, so that their ratio is not noise."""

_PIECE = "\u2581\u0120\u010a"
"""Characters that tokenizers write for white space before a word."""

_REVISIONS = ("system_fingerprint", "model")
"""Keys of an answer that identify the revision, the better one first."""

_UNTHINKING = {"chat_template_kwargs": {"enable_thinking": False}}
"""Makes vLLM, SGLang and similar servers turn off a model's thinking."""

Mode = Literal["logprobs", "structured", "text"]

INSTRUCTION = "Answer with yes or no."

_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
_ASKED: dict[Mode, dict[str, Any]] = {
    "logprobs": {"max_tokens": 4, "logprobs": True, "top_logprobs": 20},
    "structured": {
        "max_tokens": 24,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA},
        },
    },
    "text": {"max_tokens": 8},
}


class ChatBackend(RemoteBackend):
    """Queries a chat-completion endpoint, ``openai:MODEL@URL``: vLLM, SGLang, ``transformers serve`` or a hosted model.

    Args:
        model: the server's name for the model.
        urls: base URLs of servers with the same model, the preferred one first.
        instruction: appended to every question.
        options: passed to :class:`~dnp_guard.vlm.remote.transport.Transport`.

    Attributes:
        mode: the mode that the trial found: ``logprobs``, ``structured`` or ``text``.
        answers: ``probabilities`` or ``text``, as the trial found.

    Raises:
        VlmUnavailable: the server answers the trial in none of these modes.
    """

    mode: Mode

    def __init__(self, model: str, urls: Sequence[str], *, instruction: str = INSTRUCTION, **options: Any) -> None:
        super().__init__(model, urls, **options)
        self._instruction = instruction
        self._more: dict[str, Any] = {}
        self._revision_key = ""
        """Key of an answer that identifies the revision."""
        try:
            self.mode = self._trial()
        except VlmError as error:
            self.close()
            raise untried(model, error) from error
        self.answers = "probabilities" if self.mode == "logprobs" else "text"

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Return the probability of "yes", shape [images, questions]; see :class:`~dnp_guard.vlm.base.Backend`."""
        if not images or not questions:
            return [[] for _ in images]
        return self._ask([data_url(image) for image in images], questions, self.mode)

    def _ask(self, pictures: Sequence[str], questions: Sequence[str], mode: Mode) -> list[list[float]]:
        bodies = [self._body(picture, question, mode) for picture in pictures for question in questions]
        answers = iter(self._transport.post("/chat/completions", bodies))
        return [[self._read(next(answers), mode) for _ in questions] for _ in pictures]

    def _body(self, picture: str, question: str, mode: Mode) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": f"{question} {self._instruction}".rstrip()},
        ]
        return (
            {"model": self.name, "messages": [{"role": "user", "content": content}], "temperature": 0}
            | _ASKED[mode]
            | self._more
        )

    def _read(self, answer: Any, mode: Mode) -> float:
        if isinstance(answer, dict):
            # A key that an answer leaves out says nothing about the model: keep to the first key that was present.
            self._revision_key = self._revision_key or next((key for key in _REVISIONS if answer.get(key)), "")
            revision = answer.get(self._revision_key)
            if isinstance(revision, str) and revision and revision != self.name:
                self.revision = revision
        return _READ[mode](member(answer, dict, "choices", 0))

    def _trial(self) -> Mode:
        picture = [data_url(trial_picture())]
        problem: VlmError | None = None
        ways: list[tuple[Mode, dict[str, Any]]] = [("logprobs", {}), ("logprobs", _UNTHINKING)]
        for mode, more in [*ways, ("structured", {}), ("text", {})]:
            if more and not isinstance(problem, Noise):
                continue
            self._more = more
            try:
                self._ask(picture, [TRIAL_QUESTION], mode)
            except (VlmBadAnswer, Refused) as error:
                problem = problem if isinstance(problem, Noise | Refused) else error
            else:
                return mode
        raise problem or VlmBadAnswer("no answer at all")


def from_logprobs(choice: Any) -> float:
    """Return the probability Σ p(yes) / (Σ p(yes) + Σ p(no)) over the likeliest first tokens of an answer.

    Args:
        choice: an item of ``choices`` in the server's response.

    Raises:
        VlmBadAnswer: the choice has no log probabilities.
        Noise: most of the probability is on other words.
    """
    tops = member(choice, list, "logprobs", "content", 0, "top_logprobs")
    masses = {"yes": 0.0, "no": 0.0}
    for top in tops:
        word = member(top, str, "token").lstrip(_PIECE).strip(_AROUND).lower()
        value = top.get("logprob")
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value > _ROUNDING:
            raise VlmBadAnswer("logprob is not a log probability", hint=_HINT)
        if word in masses:
            masses[word] += math.exp(value)
    total = sum(masses.values())
    if total <= _MOST:
        raise noise('"yes" and "no"', total)
    return masses["yes"] / total


def from_json(choice: Any) -> float:
    """Read ``{"answer": "yes"}`` as 1 and ``{"answer": "no"}`` as 0.

    Args:
        choice: an item of ``choices`` in the server's response.

    Raises:
        VlmBadAnswer: the answer is anything else.
    """
    content = member(choice, str, "message", "content")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise VlmBadAnswer("the answer does not follow the schema", hint=_HINT) from error
    word = answer.get("answer") if isinstance(answer, dict) else None
    if word not in ("yes", "no"):
        raise VlmBadAnswer("the answer does not follow the schema", hint=_HINT)
    return float(word == "yes")


def from_text(choice: Any) -> float:
    """Read a text as 1 if its first word is "yes", and as 0 if it is "no"; a text with both is refused.

    Args:
        choice: an item of ``choices`` in the server's response.

    Raises:
        VlmBadAnswer: the text begins with another word, or contains both.
    """
    return yes_or_no(member(choice, str, "message", "content"))


_ROUNDING = 1e-6
_READ = {"logprobs": from_logprobs, "structured": from_json, "text": from_text}
_HINT = "Use a model that follows instructions, or a typed-decision endpoint."

_AROUND = " \t\r\n\"'*.,"
