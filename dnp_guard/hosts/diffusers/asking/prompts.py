"""Find a call's prompt and negative prompt, and build its arguments with other words in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dnp_guard.hosts.diffusers.asking.recording import Recording

_NO_PROMPT = ("cls", "device", "dtype", "format", "mode", "path", "type")
"""Endings of names of text arguments that are not prompts."""

_NO_PROMPTS = ("callback", "negative", "output")
"""Beginnings of names of text arguments that are not prompts."""


@dataclass(frozen=True, slots=True)
class Reworded:
    """Changes to a call's arguments that put other words in place of its prompt or negative prompt.

    Attributes:
        given: the changed arguments.
        negative: whether the words replace the negative prompt, rather than the prompt.
        name: name of the argument with the words.
        beside: changed arguments of the call to compare with; None to compare with the call as it is.
    """

    given: Mapping[str, Any]
    negative: bool
    name: str
    beside: Mapping[str, Any] | None = None


def prompt_of(given: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the name and value of the argument that is a call's prompt; an empty name if there is none."""
    names = [name for name, value in given.items() if _words(value) and not name.startswith(_NO_PROMPTS)]
    first = [name for name in ("prompt", *names) if name in names and "prompt" in name]
    rest = [name for name in names if not name.endswith(_NO_PROMPT)]
    return next(((name, given[name]) for name in (*first, *rest)), ("", None))


def changes(recording: Recording, words: str) -> Iterator[Reworded]:
    """Yield the ways to put words into a call: first as a negative prompt, if the call takes one, then as a prompt.

    Everything else that belongs to the replaced text, such as embeddings and texts for further encoders, is left out.
    If both prompts came as embeddings, a last way replaces both by texts, because embeddings that the caller passes can
    be longer than those that the encoder makes.
    """
    given = recording.given
    if recording.encoded:
        yield from _encoded(recording, words)
        return
    name, value = prompt_of(given)
    negative = _first(recording, f"negative_{name}" if name else "negative_prompt", "negative_prompt")
    if negative:
        like = value if name else ([words] * _count(given))
        yield Reworded({**_without(recording, "negative_"), negative: _like(like, words)}, negative=True, name=negative)
    if name:
        yield Reworded({**_without(recording, f"{name}_"), name: _like(value, words)}, negative=False, name=name)
    elif recording.accepts("prompt"):
        embeds = _without(recording, "prompt_") | _without(recording, "pooled_prompt_")
        prompts = [words] * _count(given)
        yield Reworded({**embeds, "prompt": prompts}, negative=False, name="prompt")
        if negative:
            empty = {**embeds, **_without(recording, "negative_"), "prompt": [""] * len(prompts)}
            beside = {**empty, negative: empty["prompt"]}
            yield Reworded({**empty, negative: prompts}, negative=True, name=negative, beside=beside)


def _encoded(recording: Recording, words: str) -> Iterator[Reworded]:
    """Yield the ways to put words into a call as embeddings that were encoded beforehand.

    Raises:
        CannotSteer: the words were not encoded beforehand.
    """
    if (encoded := recording.encoded.get(words)) is None:
        raise CannotSteer(
            "a negative is not among the words that were encoded beforehand",
            hint="Give guard.encoded() every text that the policy may inject, joined ones of several categories too.",
        )
    count = _count(recording.given)
    rows = {name: value.expand(count, *value.shape[1:]) for name, value in encoded.items()}
    negatives = {f"negative_{name}": value for name, value in rows.items()}
    if all(map(recording.accepts, negatives)):
        yield Reworded({**_without(recording, "negative_"), **negatives}, negative=True, name=next(iter(negatives)))
    without = _without(recording, "prompt") | _without(recording, "pooled_prompt_")
    yield Reworded({**without, **rows}, negative=False, name=next(iter(rows)))


def _first(recording: Recording, *names: str) -> str:
    return next((name for name in names if recording.accepts(name)), "")


def _without(recording: Recording, start: str) -> dict[str, Any]:
    """Return the passed arguments whose names begin with ``start``, set to their defaults."""
    settings = ("prompt_template", "prompt_embeds_scale")
    return {
        name: recording.default(name)
        for name, value in recording.given.items()
        if name.startswith(start) and value is not None and not name.startswith(settings) and recording.accepts(name)
    }


def _count(given: Mapping[str, Any]) -> int:
    embeds = next((given[name] for name in ("prompt_embeds", "prompt_embeds_t5") if given.get(name) is not None), ())
    return len(embeds) or 1


def _words(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(isinstance(key, int) and isinstance(text, str) for key, text in value.items())
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
    )


def _like(value: Any, words: str) -> Any:
    """Return words in the form of another argument: a string, or a list with one string per prompt."""
    return [words] * len(value) if isinstance(value, list) else words
