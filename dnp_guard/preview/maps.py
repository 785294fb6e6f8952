"""Fitted maps on disk, one for each autoencoder, by the hash of its weights."""

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
    """The map of an autoencoder: from memory, from disk, or fitted now and kept.

    A cache that cannot be read or written costs only the fitting.

    Args:
        vae: the autoencoder.
        device: where it computes.
    """
    with _FITTING:
        if (found := _IN_USE.get(vae)) is None:
            file = file_of(vae)
            found = (file and _read(file)) or _kept(fit(vae, device), file)
            _IN_USE[vae] = found
        return found


def file_of(vae: Any) -> Path | None:
    """Where the map of an autoencoder is kept: ``DNP_GUARD_CACHE``, or the user's cache; None without a home."""
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
            told = saved.metadata()
            return LinearMap(
                saved.get_tensor("weight"), saved.get_tensor("bias"), float(told["error"]), float(told["constant"])
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _kept(fitted: LinearMap, file: Path | None) -> LinearMap:
    if file is None:
        return fitted
    told = {"error": str(fitted.error), "constant": str(fitted.constant)}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            save_file({"weight": fitted.weight, "bias": fitted.bias}, draft, metadata=told)
    return fitted
