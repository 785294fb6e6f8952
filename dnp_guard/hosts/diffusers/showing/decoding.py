"""Decode a pipeline's predictions to the pictures for queries, as the policy's ``preview.method`` requires."""

from __future__ import annotations

import copy
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from diffusers import AutoencoderTiny

from dnp_guard.errors import CannotSteer
from dnp_guard.preview import autoencoder
from dnp_guard.preview.autoencoder import check_finite, decoded, scaled, to_pictures
from dnp_guard.preview.maps import linear_map

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from PIL.Image import Image
    from torch import Tensor

    Decode = Callable[[Tensor], list[Image]]

BESIDE: Final = ("vae_tiny", "tiny_vae", "taesd")
"""Subfolders of a model in which a tiny autoencoder is looked for."""

_COPIES: WeakKeyDictionary[Any, dict[torch.device, Any]] = WeakKeyDictionary()
_COPYING = threading.Lock()


def decoder(pipe: Any, vae: Any, method: str, given: Any = None) -> Decode:
    """Return a function that decodes unscaled latents, [B, C, H, W], into pictures.

    Args:
        pipe: the pipeline.
        vae: the pipeline's own autoencoder.
        method: ``vae`` uses the pipeline's own autoencoder, with at most 64 latents per side. ``tiny`` uses ``given``,
            or a tiny autoencoder in the model's folder. ``linear`` uses a linear map that is fitted to the pipeline's
            own autoencoder. ``auto`` works as ``tiny`` if there is a tiny autoencoder, otherwise as ``vae``.
        given: an AutoencoderTiny, or the folder of one; None to look for one in the model's folder.

    Raises:
        CannotSteer: there is no tiny autoencoder, it cannot be loaded, or it is made for other latents.
    """
    if method == "linear":
        return lambda latents: linear_map(vae, latents.device).decode(autoencoder.reduced(latents))
    tiny = _tiny(pipe, vae, given) if method in {"tiny", "auto"} else None
    if method == "tiny" and tiny is None:
        raise CannotSteer(
            "the policy's preview.method is 'tiny', and there is no AutoencoderTiny",
            hint=f"Pass Guard(preview_vae=FOLDER), or put one into {BESIDE[0]}/ in the model's folder.",
        )
    if tiny is None or tiny is vae:  # the pipeline moves it, or must not move it under offload
        return lambda latents: _pictures(vae, autoencoder.reduced(latents))
    return lambda latents: autoencoder.decode(placed(tiny, latents.device), scaled(vae, autoencoder.reduced(latents)))


def _pictures(vae: Any, latents: Tensor) -> list[Image]:
    check_finite(latents)
    return to_pictures(decoded(vae, latents)[:, :3] / 2 + 0.5)


def _tiny(pipe: Any, vae: Any, given: Any) -> Any:
    """Return the tiny autoencoder of a pipeline; None if there is none."""
    if given is None and isinstance(vae, AutoencoderTiny):
        return vae
    if isinstance(given, str | Path):
        tiny: Any = Path(given)
        if not _holds_one(tiny):
            raise CannotSteer(f"{given} holds no autoencoder", hint="Name a folder that save_pretrained wrote.")
    elif given is not None:
        tiny = given
    else:
        folder = getattr(pipe, "name_or_path", None)
        folders = (Path(folder or "") / name for name in BESIDE)
        tiny = next(filter(_holds_one, folders), None) if folder else None
    if isinstance(tiny, Path):
        tiny = _loaded(tiny)
    if tiny is not None and vae is not None and (theirs := channels(tiny)) != (ours := channels(vae)):
        raise CannotSteer(
            f"the tiny autoencoder takes {theirs} latent channels, and {type(pipe).__name__} has {ours}",
            hint="Use the one made for this model.",
        )
    return tiny


def _holds_one(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def placed(tiny: Any, device: torch.device) -> Any:
    """Return an autoencoder on a device: itself if it is there, otherwise a copy, which is kept for later calls."""
    if tiny.device == device:
        return tiny
    with _COPYING:
        copies = _COPIES.setdefault(tiny, {})
        if device not in copies:
            copies[device] = copy.deepcopy(tiny).to(device)
        return copies[device]


@cache
def _loaded(folder: Path) -> Any:
    try:
        kind = AutoencoderTiny.load_config(folder).get("_class_name")
        # For another class diffusers would initialise missing weights at random.
        tiny = kind == AutoencoderTiny.__name__ and AutoencoderTiny.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # whatever is wrong with its files
        raise _unusable(folder, next(iter(str(error).splitlines()), "")) from error
    if not tiny:
        raise _unusable(folder, f"it holds an {kind}")
    return tiny.eval()


def _unusable(folder: Path, why: str) -> CannotSteer:
    return CannotSteer(
        f"{folder}: the tiny autoencoder cannot be loaded: {why}",
        hint="Save it again with safetensors, or remove the folder.",
    )


def channels(vae: Any) -> int | None:
    """Return the number of latent channels of an autoencoder; None if unknown."""
    config = getattr(vae, "config", {})
    known: int | None = config.get("latent_channels") or config.get("z_dim")
    return known
