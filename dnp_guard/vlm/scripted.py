"""A backend that answers from a script, for tests and rehearsals.

A script is a list of looks, one per call of the backend; the last one repeats. A look is a mapping from term to
probability, a list of such mappings (one per image), or ``error: KIND``, which raises an error::

    - {star: 0.1}                       # the first look: almost nothing
    - [{star: 0.9, bolt: 0.2}, {}]      # the second: a star in the first image of two
    - {error: timeout}                  # the third fails
    - {star: 0.0}                       # from the fourth on
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import VlmBadAnswer, VlmBusy, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.vlm.base import Backend

if TYPE_CHECKING:
    from PIL.Image import Image

Terms = Mapping[str, float]
Look = Terms | Sequence[Terms] | Mapping[str, str] | Exception
Script = Callable[[Sequence["Image"], Sequence[str]], Sequence[Sequence[float]]] | Terms | Sequence[Look]

ERRORS: Mapping[str, type[VlmError]] = {
    "timeout": VlmTimeout,
    "busy": VlmBusy,
    "bad_answer": VlmBadAnswer,
    "unavailable": VlmUnavailable,
    "error": VlmError,
}
"""The values of ``error: KIND``, and the error that each raises."""


class ScriptedBackend(Backend):
    """Answers questions from a script, in place of a model.

    A question gets the probability of the term that its text contains as whole words, ignoring case: the earliest one,
    and of those that start there the longest ("star sign" before "star"). Without a term the answer is 0.

    Each call takes the next look, an entry of the script. A call that asks new questions about pictures of the current
    look, such as the question about an ``allowed`` case, is answered from the same look.

    Args:
        script: a file (YAML or JSON), a list of looks, one mapping for every look, or a function that replaces
            ``ask``.

    Raises:
        VlmUnavailable: the file cannot be read, or does not hold a script.
    """

    name = "scripted"

    def __init__(self, script: Script | str | Path) -> None:
        self._function: Callable[[Sequence[Image], Sequence[str]], Sequence[Sequence[float]]] | None = None
        self._looks: tuple[Look, ...] = ()
        self._at = -1
        self._images: tuple[Image, ...] = ()
        self._asked: frozenset[tuple[int, str]] = frozenset()
        self._turn = threading.Lock()
        if isinstance(script, (str, Path)):
            data = _bytes(Path(script))
            self.revision = sha256(data).hexdigest()[:12]
            self._looks = _looks(_parse(data, str(script)), str(script))
        elif callable(script):
            self._function = script
        else:
            self._looks = _looks(script, "script")
            self.revision = _digest(self._looks)

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> Sequence[Sequence[float]]:
        """Answer from the next look of the script, or again from the current one; see :class:`ScriptedBackend`.

        Raises:
            VlmError: the look is an error, or has no entry for one of the images.
        """
        if self._function is not None:
            return self._function(images, questions)
        with self._turn:
            look, numbers = self._look(images, questions)
        if isinstance(look, Exception):
            raise look.with_traceback(None)
        if isinstance(look, Mapping):
            return [_answers(look, questions) for _ in images]
        if numbers and max(numbers) >= len(look):
            raise VlmBadAnswer(
                f"look {self._at} of the script has {len(look)} images, and image {max(numbers)} is asked about",
                hint="Give the look one mapping per image, or a single mapping for all.",
            )
        return [_answers(look[number], questions) for number in numbers]

    def _look(self, images: Sequence[Image], questions: Sequence[str]) -> tuple[Any, list[int]]:
        """Return the look that answers a call, and the positions of the call's images in it."""
        known = {id(image): place for place, image in enumerate(self._images)}
        pairs = frozenset((id(image), question) for image in images for question in questions)
        if images and self._asked.isdisjoint(pairs) and all(id(image) in known for image in images):
            self._asked |= pairs
            return self._looks[self._at], [known[id(image)] for image in images]
        self._at = min(self._at + 1, len(self._looks) - 1)
        self._images, self._asked = tuple(images), pairs
        return self._looks[self._at], list(range(len(images)))


def _answers(terms: Mapping[str, float], questions: Sequence[str]) -> list[float]:
    return [next((terms[term] for term in _terms(question, terms)), 0.0) for question in questions]


def _terms(question: str, terms: Mapping[str, float]) -> list[str]:
    """Return the terms that a question contains as whole words, the earliest first, then the longest."""
    matches = ((re.search(rf"(?<!\w){re.escape(term)}(?!\w)", question, re.IGNORECASE), term) for term in terms)
    return [term for _, _, term in sorted((match.start(), -len(term), term) for match, term in matches if match)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VlmUnavailable(
            f"{path}: the script cannot be read: {error.strerror}", hint="Name a YAML or JSON file."
        ) from error


def _parse(data: bytes, where: str) -> object:
    from ruamel.yaml import YAML  # noqa: PLC0415 (only a script in a file needs it)
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return YAML(typ="safe", pure=True).load(data.decode())
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise VlmUnavailable(f"{place}: {problem}", hint=_HINT) from error


def _looks(script: object, where: str) -> tuple[Look, ...]:
    if isinstance(script, Mapping):
        script = [script]
    if not isinstance(script, Sequence) or isinstance(script, (str, bytes)) or not script:
        raise VlmUnavailable(f"{where}: a script is a list of looks, and not empty", hint=_HINT)
    return tuple(_checked(look, f"{where}: look {number}") for number, look in enumerate(script))


def _checked(look: object, where: str) -> Look:
    if isinstance(look, Exception):
        return look
    if isinstance(look, Mapping) and isinstance(kind := look.get("error"), str):
        if kind not in ERRORS or len(look) != 1:
            raise VlmUnavailable(
                f"{where}: unknown error {kind!r}", hint=f"error is one of {', '.join(ERRORS)}, alone."
            )
        return ERRORS[kind](f"the script says: {kind}")
    if isinstance(look, Mapping):
        return _checked_terms(look, where)
    if isinstance(look, Sequence) and not isinstance(look, (str, bytes)):
        return [_checked_terms(terms, f"{where}, image {number}") for number, terms in enumerate(look)]
    raise VlmUnavailable(f"{where}: {look!r} is not a look", hint=_HINT)


def _checked_terms(terms: object, where: str) -> Terms:
    if not isinstance(terms, Mapping):
        raise VlmUnavailable(f"{where}: {terms!r} is not a mapping from term to probability", hint=_HINT)
    for term, p in terms.items():
        number = isinstance(p, (int, float)) and not isinstance(p, bool)
        if not isinstance(term, str) or not term or not number or not 0 <= p <= 1:
            raise VlmUnavailable(f"{where}: {term!r}: {p!r} is not a term and its probability 0…1", hint=_HINT)
    return dict(terms)


def _digest(looks: Sequence[Look]) -> str:
    return sha256(json.dumps(looks, sort_keys=True, default=repr).encode()).hexdigest()[:12]


_HINT = "For example: [{star: 0.1}, {star: 0.9}, {error: timeout}]."
