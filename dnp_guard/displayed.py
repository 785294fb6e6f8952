"""Check that all programs display a picture in the same way, so that the model sees it as people do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES: Final = frozenset({"1", "L", "P", "LA", "PA", "RGB", "RGBA"})
_ORIENTATION: Final = 0x0112
_GAMMA: Final = 1 / 2.2
_NEAR: Final = 0.001
_OPAQUE: Final = (255, 255)


class NotAsShown(DnpGuardError):
    """A picture that programs may display differently from its pixels."""


def as_shown(picture: Image) -> Image:
    """Return the RGB pixels of a picture that every program displays alike.

    Raises:
        NotAsShown: the picture is transparent, has several frames, or has metadata that rotate or colour it.
    """
    if picture.mode == "RGB" and not picture.info:
        return picture  # the usual case
    if getattr(picture, "n_frames", 1) > 1 or picture.info.get("default_image"):
        raise _refused("it has several frames")
    if picture.mode not in _MODES:
        raise _refused(f"its mode is {picture.mode}")
    picture.load()
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != _OPAQUE:
        raise _refused("it is transparent")
    if picture.info.get("icc_profile"):
        raise _refused("it has a colour profile")
    if abs(picture.info.get("gamma", _GAMMA) - _GAMMA) > _NEAR:
        raise _refused("it has its own gamma")
    if picture.getexif().get(_ORIENTATION, 1) not in {0, 1}:
        raise _refused("its metadata rotate it")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _refused(why: str) -> NotAsShown:
    return NotAsShown(
        f"programs may display the picture differently: {why}", hint="Pass opaque RGB pixels, one frame of them."
    )
