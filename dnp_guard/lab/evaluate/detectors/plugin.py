"""Build the detectors that judge finished images from their specs, such as ``nudenet`` or ``clip:FOLDER``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError
from dnp_guard.hookspecs import hookimpl
from dnp_guard.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dnp_guard.lab.evaluate.detectors.base import ImageDetector
    from dnp_guard.policy import Policy

KINDS = ("glyphs", "nudenet", "opennsfw", "q16:FOLDER", "clip:ID_OR_FOLDER", "vlm:SPEC")
"""Specs that this plugin builds, as messages list them."""


@hookimpl
def dnp_guard_detector(spec: str, policy: Policy) -> ImageDetector | None:
    """Build a built-in detector, and import its packages only now; return None if the spec is not built in."""
    kind, _, rest = spec.partition(":")
    if bool(rest) == (kind in _SHIPPED):
        return None
    if kind in _SHIPPED:
        return _shipped(kind)
    if kind in {"q16", "clip"}:
        from dnp_guard.lab.evaluate.detectors.clip import ClipDetector, Q16Detector, load_clip  # noqa: PLC0415

        clip = load_clip(rest)
        return Q16Detector(clip) if kind == "q16" else ClipDetector(clip, policy)
    if kind == "vlm":
        from dnp_guard.lab.evaluate.detectors.vision_language import VlmDetector  # noqa: PLC0415
        from dnp_guard.vlm.plugin import build as backend  # noqa: PLC0415

        return VlmDetector(backend(rest), policy)
    return None


_SHIPPED = {"glyphs", "nudenet", "opennsfw"}


def _shipped(kind: str) -> ImageDetector:
    """Build a detector whose weights come with a Python package: ``glyphs``, ``nudenet`` or ``opennsfw``."""
    if kind == "glyphs":
        from dnp_guard.lab.evaluate.detectors.glyphs import GlyphsDetector  # noqa: PLC0415

        return GlyphsDetector()
    if kind == "nudenet":
        from dnp_guard.lab.evaluate.detectors.nudenet import NudeNetDetector  # noqa: PLC0415

        return NudeNetDetector()
    from dnp_guard.lab.evaluate.detectors.opennsfw import OpenNsfwDetector  # noqa: PLC0415

    return OpenNsfwDetector()


def who(spec: str) -> str:
    """Return the model's part of a spec of a detector or a backend, to find out whether two specs share a model.

    >>> who("detector:nudenet") == who("nudenet"), who("vlm:openai:m@http://h") == who("openai:m@http://h")
    (True, True)
    """
    return spec.removeprefix("vlm:").removeprefix("detector:")


def build(spec: str, policy: Policy, plugins: Iterable[str | object] = ()) -> ImageDetector:
    """Build the detector that a spec names, by the built-in plugin or an allowed one.

    Args:
        spec: one of :data:`KINDS`, or a spec that an allowed plugin knows.
        policy: policy with the categories for a detector without its own.
        plugins: names of installed plugins that may load, or plugin objects.

    Raises:
        DnpGuardError: if no plugin knows the spec, or the detector cannot be built.
    """
    failures: list[str] = []
    known = Plugins(
        (sys.modules[__name__],), plugins, lambda plugin, _, error: failures.append(f"plugin {plugin!r}: {error}")
    )
    detector: ImageDetector | None = known.hook.dnp_guard_detector(spec=spec, policy=policy)
    if failures:
        raise DnpGuardError(f"detector {spec!r}: {failures[0]}", hint="Repair the plugin, or name another detector.")
    if detector is None:
        raise DnpGuardError(
            f"no detector knows the spec {spec!r}", hint=f"Use {', '.join(KINDS)}, or allow a plugin that knows it."
        )
    return detector
