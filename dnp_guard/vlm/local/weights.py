"""Find a model's files on this machine, and identify the model."""

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
        folder: path of the folder.
        name: the folder or hub id, as given.
        revision: the commit of a hub snapshot, or the first 12 digits of :func:`digest` of a folder.
    """

    folder: Path
    name: str
    revision: str


def find(model: str | Path, *, revision: str | None = None, allow_download: bool = False) -> Weights:
    """Find a model's files in a folder, or by a hub id in the local cache of the Hugging Face hub.

    Args:
        model: a folder or a hub id, ``owner/name``.
        revision: a commit, tag or branch of the hub; for a folder, the digest that its files must have.
        allow_download: download files that the cache lacks.

    Raises:
        VlmUnavailable: the model is not there, has no weights or only pickled ones, or differs from ``revision``.
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
    """Return the SHA-256, in hex, over the weight files in order of name: ``cat *.safetensors | sha256sum``."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def digest(folder: Path) -> str:
    """Return the SHA-256, in hex, over all files that affect answers: weights, configuration, tokenizer, processor.

    The chat template is among these files. The result equals the output of
    ``LC_ALL=C sha256sum *.jinja *.json *.model *.safetensors *.txt | LC_ALL=C sort -k 2 | sha256sum``.
    """
    files = sorted({path.name: path for pattern in _WANTED for path in folder.glob(pattern)}.items())
    listed = (f"{_sha256(path)}  {name}\n" for name, path in files)
    return hashlib.sha256("".join(listed).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; messages of the Hugging Face libraries can fill pages."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _pinned(folder: Path, name: str, revision: str | None) -> str:
    actual = digest(folder)
    if not revision or actual.startswith(revision.lower()):
        return actual[:12]
    if weights_digest(folder).startswith(revision.lower()):
        raise VlmUnavailable(
            f"{name}: the pinned {revision} is a digest of its weights alone, as earlier versions made them",
            hint=f"Pin {actual[:12]}, which covers the tokenizer, the processor and the template too.",
        )
    raise VlmUnavailable(
        f"{name}: it has the SHA-256 {actual[:12]}…, not the pinned {revision}",
        hint="Restore the pinned files, weights, tokenizer, processor and template alike, or pin these.",
    )


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
