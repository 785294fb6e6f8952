"""Store fitted linear maps from latents to RGB on disk, one per autoencoder, named by a hash of its weights."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dnp_guard.files import cache_path, replacing
from dnp_guard.preview.linear import LinearMap, fit

if TYPE_CHECKING:
    from pathlib import Path

FOLDER_VARIABLE: Final = "DNP_GUARD_CACHE"
_FORMAT: Final = "1"
_IN_USE: WeakKeyDictionary[Any, LinearMap] = WeakKeyDictionary()
_FITTING = threading.Lock()


def linear_map(vae: Any, device: torch.device) -> LinearMap:
    """Return the linear map of an autoencoder: from memory, from disk, or by fitting and storing it now.

    If its file cannot be read or written, the map is fitted again in every process.

    Args:
        vae: the autoencoder.
        device: device to compute on.
    """
    with _FITTING:
        if (mapping := _IN_USE.get(vae)) is None:
            file = file_of(vae)
            mapping = (file and _read(file)) or _kept(fit(vae, device), file)
            _IN_USE[vae] = mapping
        return mapping


def file_of(vae: Any) -> Path | None:
    """Return the file of an autoencoder's map, in the folder ``DNP_GUARD_CACHE`` or in the user's cache folder.

    The result is None if the variable is not set and the user has no home folder.
    """
    if (folder := cache_path("", FOLDER_VARIABLE)) is None:
        return None
    digest = hashlib.sha256(_FORMAT.encode())
    for name, value in sorted(vae.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return folder / "linear" / f"{digest.hexdigest()[:32]}.safetensors"


def _read(file: Path) -> LinearMap | None:
    try:
        with safe_open(file, framework="pt") as saved:
            metadata = saved.metadata()
            return LinearMap(
                saved.get_tensor("weight"),
                saved.get_tensor("bias"),
                float(metadata["error"]),
                float(metadata["constant"]),
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _kept(fitted: LinearMap, file: Path | None) -> LinearMap:
    if file is None:
        return fitted
    metadata = {"error": str(fitted.error), "constant": str(fitted.constant)}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            save_file({"weight": fitted.weight, "bias": fitted.bias}, draft, metadata=metadata)
    return fitted
