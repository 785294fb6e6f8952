"""The specs of built-in backends, ``kind:rest``: their kinds, and how the rest is read. Nothing is built here."""

from __future__ import annotations

from typing import Final

from dnp_guard.errors import VlmUnavailable, nearest

KINDS: Final = (
    "glyphs",
    "transformers:ID_OR_FOLDER",
    "transformers-text:ID_OR_FOLDER",
    "shieldgemma2:ID_OR_FOLDER",
    "llavaguard:ID_OR_FOLDER",
    "llamaguard:ID_OR_FOLDER",
    "openai:MODEL@URL",
    "systemone:MODEL@URL",
    "decisions:MODEL@URL",
    "detector:nudenet",
    "detector:opennsfw",
    "scripted:FILE",
)
"""The kinds that this plugin builds, as messages list them."""


def offer(spec: str) -> str:
    """Suggest a replacement for a spec that no backend knows: the nearest kind, or the list of all.

    >>> offer("transformer:Qwen/Qwen2.5-VL-3B-Instruct")
    'Did you mean transformers:ID_OR_FOLDER?'
    """
    kinds = {known.partition(":")[0]: known for known in KINDS}
    best = nearest(spec.partition(":")[0], list(kinds))
    return f"Did you mean {kinds[best]}?" if best else f"Use {', '.join(KINDS)}."


def target(rest: str, form: str) -> tuple[str, tuple[str, ...]]:
    """Split ``MODEL@URL[,URL]`` into the model's name, which may itself contain ``@``, and the URLs.

    Args:
        rest: the part of a spec after its kind.
        form: how such a spec is written, for the error message.

    Raises:
        VlmUnavailable: the model or the address is missing.
    """
    model, _, address = rest.partition("@http")
    if not model or not address:
        raise VlmUnavailable(f"{rest!r} names no model at an http(s) address", hint=f"Write {form}.")
    return model, tuple(f"http{address}".split(","))


def rest_of(spec: str, rest: str, form: str) -> str:
    """Return the part of a spec after its kind, if it is not empty.

    Args:
        spec: the whole spec.
        rest: the part after the kind.
        form: how such a spec is written, for the error message.

    Raises:
        VlmUnavailable: the part is empty.
    """
    if not rest:
        raise VlmUnavailable(f"{spec!r} names no model", hint=f"Write {form}.")
    return rest
