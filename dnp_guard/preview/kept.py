"""Fitted maps on disk, one for each autoencoder, by the hash of its weights."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dnp_guard.preview.linear import LinearMap, fit

FOLDER_VARIABLE: Final = "DNP_GUARD_CACHE"
_FORMAT: Final = "1"
_IN_USE: WeakKeyDictionary[Any, LinearMap] = WeakKeyDictionary()
_FITTING = threading.Lock()


def cache_folder() -> Path:
    """Where fitted maps are kept: ``DNP_GUARD_CACHE``, or ``dnp-guard`` in the user's cache."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "dnp-guard"


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
            found = _read(file) or _kept(fit(vae, device), file)
            _IN_USE[vae] = found
        return found


def file_of(vae: Any) -> Path:
    """Where the map of an autoencoder is kept."""
    digest = hashlib.sha256(_FORMAT.encode())
    for name, value in sorted(vae.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return cache_folder() / "linear" / f"{digest.hexdigest()[:32]}.safetensors"


def _read(file: Path) -> LinearMap | None:
    try:
        with safe_open(file, framework="pt") as saved:
            told = saved.metadata()
            return LinearMap(
                saved.get_tensor("weight"), saved.get_tensor("bias"), float(told["error"]), float(told["constant"])
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _kept(fitted: LinearMap, file: Path) -> LinearMap:
    told = {"error": str(fitted.error), "constant": str(fitted.constant)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as whole:
            save_file({"weight": fitted.weight, "bias": fitted.bias}, whole.name, metadata=told)
        Path(whole.name).replace(file)
    except OSError:
        pass
    return fitted
