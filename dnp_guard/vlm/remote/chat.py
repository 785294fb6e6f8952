"""Chat-completion endpoints: one request an image and question, answered by "yes" or "no".

A trial at construction finds out what the server can do, best first: log probabilities of the answer's first token,
from which a probability is made; an answer in the form of a JSON schema; or plain text, which is read strictly. The
last two say yes or no and nothing between.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

from dnp_guard.errors import VlmBadAnswer, VlmError
from dnp_guard.vlm.picture import data_url
from dnp_guard.vlm.remote.backend import TRIAL_QUESTION, RemoteBackend, member, trial_picture, untried
from dnp_guard.vlm.remote.transport import Refused
from dnp_guard.vlm.spoken import Noise, noise, yes_or_no

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_MOST = 0.5
"""What part of the probability has to be on the two answers, so that their ratio is not made of noise."""

_PIECE = "\u2581\u0120\u010a"
"""What tokenizers write for white space before a word."""

_REVISIONS = ("system_fingerprint", "model")
"""What of an answer tells the revision, the better first."""

_UNTHINKING = {"chat_template_kwargs": {"enable_thinking": False}}
"""Has vLLM, SGLang and their like ask a thinking model for its answer at once."""

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
    """``openai:MODEL@URL``: vLLM, SGLang, ``transformers serve`` or a hosted model.

    Args:
        model: as the server calls it.
        urls: base URLs of equal servers, the preferred one first.
        instruction: put after every question.
        options: of :class:`~dnp_guard.vlm.remote.transport.Transport`.

    Attributes:
        mode: what the trial found: ``logprobs``, ``structured`` or ``text``.
        answers: ``probabilities`` or ``text``, as the trial found.

    Raises:
        VlmUnavailable: the server answers the trial in none of these ways.
    """

    mode: Mode

    def __init__(self, model: str, urls: Sequence[str], *, instruction: str = INSTRUCTION, **options: Any) -> None:
        super().__init__(model, urls, **options)
        self._instruction = instruction
        self._more: dict[str, Any] = {}
        self._told = ""
        """What of an answer tells the revision."""
        try:
            self.mode = self._trial()
        except VlmError as error:
            self.close()
            raise untried(model, error) from error
        self.answers = "probabilities" if self.mode == "logprobs" else "text"

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Probability of "yes", shape [images, questions]; see :class:`~dnp_guard.vlm.base.Backend`."""
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
            # What a server leaves out at times says nothing of the model: the first to be said is gone by.
            self._told = self._told or next((key for key in _REVISIONS if answer.get(key)), "")
            told = answer.get(self._told)
            if isinstance(told, str) and told and told != self.name:
                self.revision = told
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
    """Probability Σ p(yes) / (Σ p(yes) + Σ p(no)) over the likeliest first tokens of a choice.

    Raises:
        VlmBadAnswer: there are no log probabilities.
        Noise: most of the probability is on other words.
    """
    tops = member(choice, list, "logprobs", "content", 0, "top_logprobs")
    found = {"yes": 0.0, "no": 0.0}
    for top in tops:
        word = member(top, str, "token").lstrip(_PIECE).strip(_AROUND).lower()
        value = top.get("logprob")
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value > _ROUNDING:
            raise VlmBadAnswer("logprob is not a log probability", hint=_HINT)
        if word in found:
            found[word] += math.exp(value)
    total = sum(found.values())
    if total <= _MOST:
        raise noise('"yes" and "no"', total)
    return found["yes"] / total


def from_json(choice: Any) -> float:
    """1 for ``{"answer": "yes"}`` and 0 for ``{"answer": "no"}``.

    Raises:
        VlmBadAnswer: it is anything else.
    """
    content = member(choice, str, "message", "content")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise VlmBadAnswer("the answer does not follow the schema", hint=_HINT) from error
    said = answer.get("answer") if isinstance(answer, dict) else None
    if said not in ("yes", "no"):
        raise VlmBadAnswer("the answer does not follow the schema", hint=_HINT)
    return float(said == "yes")


def from_text(choice: Any) -> float:
    """1 where the first word of the text is "yes" and 0 where it is "no"; a text that says both is no answer.

    Raises:
        VlmBadAnswer: it is anything else.
    """
    return yes_or_no(member(choice, str, "message", "content"))


_ROUNDING = 1e-6
_READ = {"logprobs": from_logprobs, "structured": from_json, "text": from_text}
_HINT = "Use a model that follows instructions, or a typed-decision endpoint."

_AROUND = " \t\r\n\"'*.,"
