"""The built-in backends, by the kind that a spec begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import VlmUnavailable
from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from dnp_guard.vlm.base import Backend

KINDS = (
    "glyphs",
    "transformers:ID_OR_FOLDER",
    "openai:MODEL@URL",
    "systemone:MODEL@URL",
    "decisions:MODEL@URL",
    "scripted:FILE",
)
"""What this plugin builds, as messages list it."""


@hookimpl
def dnp_guard_vlm(spec: str) -> Backend | None:
    """Build a built-in backend; torch is imported only for one that needs it."""
    kind, _, rest = spec.partition(":")
    match kind:
        case "glyphs" if not rest:
            from dnp_guard import glyphs  # noqa: PLC0415
            from dnp_guard.vlm.local import TransformersBackend  # noqa: PLC0415

            return TransformersBackend(glyphs.VLM, name="glyphs")
        case "transformers":
            from dnp_guard.vlm.local import TransformersBackend  # noqa: PLC0415

            return TransformersBackend(_rest(spec, rest, "transformers:ID_OR_FOLDER"))
        case "scripted":
            from dnp_guard.vlm.scripted import ScriptedBackend  # noqa: PLC0415

            return ScriptedBackend(_rest(spec, rest, "scripted:FILE"))
        case "openai":
            from dnp_guard.vlm.chat import ChatBackend  # noqa: PLC0415

            return ChatBackend(*target(rest, "openai:MODEL@URL"))
        case "systemone" | "decisions":
            from dnp_guard.vlm import decisions  # noqa: PLC0415

            made = decisions.SystemOneBackend if kind == "systemone" else decisions.DecisionsBackend
            return made(*target(rest, f"{kind}:MODEL@URL"))
    return None


def build(spec: str) -> Backend:
    """Build a built-in backend.

    Raises:
        VlmUnavailable: no built-in backend has this kind of spec, or it cannot be built.
    """
    backend: Backend | None = dnp_guard_vlm(spec)
    if backend is None:
        raise VlmUnavailable(f"no backend knows the spec {spec!r}", hint=f"Use {', '.join(KINDS)}.")
    return backend


def target(rest: str, form: str) -> tuple[str, tuple[str, ...]]:
    """Read ``MODEL@URL[,URL]``; a model's name may hold an ``@`` of its own.

    Raises:
        VlmUnavailable: there is no model or no address.
    """
    model, _, address = rest.partition("@http")
    if not model or not address:
        raise VlmUnavailable(f"{rest!r} names no model at an http(s) address", hint=f"Write {form}.")
    return model, tuple(f"http{address}".split(","))


def _rest(spec: str, rest: str, form: str) -> str:
    if not rest:
        raise VlmUnavailable(f"{spec!r} names no model", hint=f"Write {form}.")
    return rest
