"""Build the built-in backends, by the kind at the start of a spec, such as ``openai`` in ``openai:MODEL@URL``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import VlmUnavailable
from dnp_guard.extras import needs
from dnp_guard.hookspecs import hookimpl
from dnp_guard.vlm.specs import KINDS, offer, rest_of, target

if TYPE_CHECKING:
    from dnp_guard.vlm.base import Backend


@hookimpl
def dnp_guard_vlm(spec: str) -> Backend | None:
    """Build the built-in backend that a spec names; None if its kind is unknown.

    Torch is imported only if the backend needs it.
    """
    kind, _, rest = spec.partition(":")
    if kind == "glyphs":
        return _glyphs() if not rest else None
    if kind not in {known.partition(":")[0] for known in KINDS}:
        return None
    if kind in {"openai", "systemone", "decisions"}:
        return _remote(kind, *target(rest, f"{kind}:MODEL@URL"))
    return _local(kind, rest_of(spec, rest, next(known for known in KINDS if known.startswith(f"{kind}:"))))


def _glyphs() -> Backend:
    needs("local", "the backend glyphs")
    from dnp_guard import glyphs  # noqa: PLC0415
    from dnp_guard.vlm.local.backend import TransformersBackend  # noqa: PLC0415

    return TransformersBackend(glyphs.VLM, name="glyphs")


def _remote(kind: str, model: str, urls: tuple[str, ...]) -> Backend:
    from dnp_guard.vlm.canary import watched  # noqa: PLC0415
    from dnp_guard.vlm.remote import chat, decisions  # noqa: PLC0415

    kinds = {"systemone": decisions.SystemOneBackend, "decisions": decisions.DecisionsBackend}
    return watched(chat.ChatBackend(model, urls) if kind == "openai" else kinds[kind](model, urls))


def _local(kind: str, model: str) -> Backend:
    if kind == "scripted":
        from dnp_guard.vlm.scripted import ScriptedBackend  # noqa: PLC0415

        return ScriptedBackend(model)
    if kind == "detector":
        from dnp_guard.vlm.local.detectors import detector  # noqa: PLC0415

        return detector(model)
    needs("local", f"the backend {kind}:{model}")
    if kind == "transformers-text":
        from dnp_guard.vlm.local.generated import TextBackend  # noqa: PLC0415

        return TextBackend(model)
    from dnp_guard.vlm.local.backend import TransformersBackend  # noqa: PLC0415
    from dnp_guard.vlm.local.forms import BY_KIND, PLAIN  # noqa: PLC0415

    return TransformersBackend(model, form=BY_KIND.get(kind, PLAIN))


def build(spec: str) -> Backend:
    """Build the built-in backend that a spec names.

    Raises:
        VlmUnavailable: no built-in backend has this kind of spec, or it cannot be built.
        MissingExtra: the backend computes in this process, and the extra ``local`` is not installed.
    """
    backend: Backend | None = dnp_guard_vlm(spec)
    if backend is None:
        raise VlmUnavailable(f"no backend knows the spec {spec!r}", hint=offer(spec))
    return backend


def look_up(spec: str) -> None:
    """Check that a built-in backend could be built from a spec: its kind, form and files. Nothing is loaded.

    Raises:
        VlmUnavailable: no backend has this kind, the spec names no model, or the model is not on this machine.
    """
    kind, _, rest = spec.partition(":")
    form = next((known for known in KINDS if known.partition(":")[0] == kind), None)
    if form is None or (kind in {"glyphs", "detector"} and spec not in KINDS):
        raise VlmUnavailable(f"no backend knows the spec {spec!r}", hint=offer(spec))
    if form.endswith("@URL"):
        target(rest, form)
    elif form.endswith(":FILE"):
        if not Path(rest_of(spec, rest, form)).is_file():
            raise VlmUnavailable(f"{rest}: no such file", hint=f"Write {form}.")
    elif spec not in KINDS:
        from dnp_guard.vlm.local import weights  # noqa: PLC0415 (only these kinds need it)

        weights.find(rest_of(spec, rest, form))
