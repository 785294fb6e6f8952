"""Find a model's files on this machine, and say which weights they are."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dnp_guard.errors import VlmUnavailable

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WANTED = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
_UNWANTED = ["original/*", "consolidated*"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of model files.

    Attributes:
        folder: where they are.
        name: the folder or hub id as it was given.
        revision: the commit of a hub snapshot, or the first 12 digits of the SHA-256 of the weight files.
    """

    folder: Path
    name: str
    revision: str


def find(model: str | Path, *, revision: str | None = None, allow_download: bool = False) -> Weights:
    """Find a folder, or a hub id in the cache.

    Args:
        model: a folder or a hub id, ``owner/name``.
        revision: a commit, tag or branch of the hub; for a folder, the digest that its weights must have.
        allow_download: fetch what the cache lacks.

    Raises:
        VlmUnavailable: it is not there, it has no weights, its weights are pickled, or they are not the pinned ones.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        _require_safetensors(path, str(model))
        return Weights(path, str(model), _pinned(path, str(model), revision))
    if isinstance(model, Path) or not _is_hub_id(model):
        raise VlmUnavailable(
            f"{model}: {'not a folder' if path.exists() else 'no such folder'}",
            hint="Name a folder written by save_pretrained, or a hub id such as owner/name.",
        )
    snapshot = _snapshot(model, revision, allow_download=allow_download)
    _require_safetensors(snapshot, model)
    return Weights(snapshot, model, snapshot.name)


def weights_digest(folder: Path) -> str:
    """SHA-256, in hex, over the weight files one after the other by name: ``cat *.safetensors | sha256sum``."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """The first line of an error's text; those of the Hugging Face libraries run to pages."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _pinned(folder: Path, name: str, revision: str | None) -> str:
    digest = weights_digest(folder)
    if revision and not digest.startswith(revision.lower()):
        raise VlmUnavailable(
            f"{name}: its weights have the SHA-256 {digest[:12]}…, not the pinned {revision}",
            hint="Restore the pinned weights, or pin these.",
        )
    return digest[:12]


def _require_safetensors(folder: Path, name: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    if pickled := sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern)):
        raise VlmUnavailable(
            f"{name}: only pickled weights ({pickled[0]}), which can run code when they are loaded",
            hint="Use a revision with safetensors, or convert it: save_pretrained(…) where you trust the file.",
        )
    raise VlmUnavailable(f"{name}: no weights (*.safetensors) there", hint="Copy or download the whole model.")


def _is_hub_id(model: str) -> bool:
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415 (a folder needs no hub client)
    from huggingface_hub.utils import validate_repo_id  # noqa: PLC0415

    if model.startswith((".", "~", os.sep)):
        return False
    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def _snapshot(model: str, revision: str | None, *, allow_download: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                local_files_only=not allow_download,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
            )
        )
    except LocalEntryNotFoundError as error:
        at = f" at revision {revision}" if revision else ""
        raise VlmUnavailable(
            f"{model}: neither a folder here nor in the Hugging Face cache{at}",
            hint=f"Download it first: hf download {model}{f' --revision {revision}' if revision else ''}",
        ) from error
    except Exception as error:
        raise VlmUnavailable(
            f"{model}: cannot be downloaded: {first_line(error)}",
            hint="Check the id, the revision and the network, or download it first: hf download.",
        ) from error
