"""Store the pictures in which a query found something, in a folder beside the log.

Without a picture key they are small and blurred, just enough to check a finding. With a picture key they are larger and
sharp, but encrypted (XSalsa20-Poly1305): nobody can see them without the key, which is stored apart from the log.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from PIL import Image, ImageFilter

from dnp_guard.audit.shapes import PREVIEW_NAME
from dnp_guard.errors import AuditError
from dnp_guard.files import create_private

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dnp_guard.audit.shapes import PreviewFields

LONGEST_SIDE: Final = 64
"""Most pixels of the longer side of a blurred picture."""

LONGEST_SEALED: Final = 768
"""Most pixels of the longer side of an encrypted picture."""

KEY_VARIABLE: Final = "DNP_GUARD_PICTURE_KEY"
"""Environment variable with the path of the key file."""

BLUR: Final = 3.0
"""Standard deviation of the Gaussian blur, in pixels of the stored picture."""

SEALED: Final = ".sealed"
"""Suffix of an encrypted picture."""

_MAKE = "Make one with: dnp-guard audit picture-key FILE"
_NAME = re.compile(PREVIEW_NAME)
"""Pattern of a stored picture's name; no other file is ever removed, whatever a record says."""


def folder(log: Path) -> Path:
    """Return the folder with the stored pictures of a log: ``audit.jsonl.previews`` for ``audit.jsonl``."""
    return log.with_name(f"{log.name}.previews")


def read_key() -> bytes | None:
    """Read the picture key from the file in ``DNP_GUARD_PICTURE_KEY``; None if that variable is not set.

    Raises:
        AuditError: the file cannot be read, users other than its owner may read it, or it contains no key.
    """
    named = os.environ.get(KEY_VARIABLE)
    if not named:
        return None
    path = Path(named)
    try:
        mode, key = path.stat().st_mode, base64.b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: cannot read the picture key: {error}", hint=_MAKE) from error
    if mode & 0o077:
        raise AuditError(f"{path}: users other than its owner can read the picture key", hint=f"chmod 600 {path}")
    if len(key) != SecretBox.KEY_SIZE:
        raise AuditError(f"{path} contains no picture key", hint=_MAKE)
    return key


def make_key(path: Path) -> None:
    """Create a key to encrypt pictures with, in a file that only its owner may read.

    Raises:
        AuditError: the file already exists or cannot be created.
    """
    try:
        with create_private(path) as file:
            file.write(base64.b64encode(os.urandom(SecretBox.KEY_SIZE)) + b"\n")
    except OSError as error:
        raise AuditError(f"{path}: cannot make the key: {error.strerror}", hint="Give another path.") from error


def shown(path: Path, key: bytes | None) -> bytes:
    """Read a stored picture, and decrypt it if it is encrypted.

    Args:
        path: file of the picture.
        key: picture key; None if there is none.

    Returns:
        The bytes of a PNG file.

    Raises:
        AuditError: the picture is encrypted, and the key is missing or wrong, or the file was altered.
    """
    data = path.read_bytes()
    if path.suffix != SEALED:
        return data
    if key is None:
        raise AuditError(f"{path}: the picture is encrypted", hint=f"Set {KEY_VARIABLE} to the file of its key.")
    try:
        return SecretBox(key).decrypt(data)
    except (CryptoError, ValueError) as error:
        raise AuditError(
            f"{path}: encrypted with another key, or altered", hint="Give the key that it was encrypted with."
        ) from error


def keep(
    place: Path, request: str, image: int, step: int | None, picture: Image.Image, key: bytes | None = None
) -> PreviewFields:
    """Store a picture, encrypted if there is a key, otherwise small and blurred.

    Args:
        place: folder of the log's pictures; created if missing.
        request: id of the generation.
        image: index in the batch.
        step: step of the query; None for the query about the finished image.
        picture: RGB picture; not altered.
        key: picture key; None to blur the picture.

    Returns:
        The file's name and hash, for ``preview{file, sha256}`` in the record.

    Raises:
        AuditError: the file cannot be written.
    """
    name = f"{request}-{image}-{'final' if step is None else step}{'.png' if key is None else SEALED}"
    data = _blurred(picture) if key is None else bytes(SecretBox(key).encrypt(_whole(picture)))
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        _write(place / name, data)
    except OSError as error:
        message = f"{place / name}: cannot store a preview: {error.strerror}"
        raise AuditError(message, hint="Let this user write the folder of the log.") from error
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def forget(place: Path, request: str, image: int) -> None:
    """Remove all stored pictures of one image.

    Raises:
        AuditError: a file cannot be removed.
    """
    _remove([path for path in _files(place) if path.name.startswith(f"{request}-{image}-")])


def is_name(name: str) -> bool:
    """Return whether a file name has the form of a stored picture's name."""
    return _NAME.fullmatch(name) is not None


def named(record: Mapping[str, Any]) -> str | None:
    """Return the file name of the stored picture that a record refers to; None if there is none."""
    preview = record.get("preview")
    name = preview.get("file") if isinstance(preview, dict) else None
    return name if isinstance(name, str) else None


def old(place: Path, *, held: Collection[str], before: float) -> list[str]:
    """List the pictures that were stored before a time, except those of requests on hold.

    Args:
        place: folder of the log's pictures.
        held: ids of requests on hold, whose records and pictures are exempt from purges.
        before: the time, in seconds since 1970.
    """
    return [
        path.name
        for path in _files(place)
        if path.name.partition("-")[0] not in held and path.lstat().st_mtime < before
    ]


def purge(
    place: Path, *, gone: Collection[str], staying: Collection[str], held: Collection[str], before: float
) -> None:
    """Remove the pictures of purged records, and old pictures that no record refers to.

    Args:
        place: folder of the log's pictures.
        gone: names of pictures in purged records.
        staying: names of pictures in the remaining records.
        held: ids of requests on hold, whose pictures stay.
        before: time before which records were purged, in seconds since 1970.

    Raises:
        AuditError: a file cannot be removed.
    """
    _remove(
        [
            path
            for path in _files(place)
            if path.name not in staying
            and path.name.partition("-")[0] not in held
            and (path.name in gone or path.lstat().st_mtime < before)
        ]
    )


def _blurred(picture: Image.Image) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _png(small.filter(ImageFilter.GaussianBlur(BLUR)))


def _whole(picture: Image.Image) -> bytes:
    fitted = picture.convert("RGB")
    fitted.thumbnail((LONGEST_SEALED, LONGEST_SEALED))
    return _png(fitted)


def _png(picture: Image.Image) -> bytes:
    bare = Image.frombytes("RGB", picture.size, picture.tobytes())  # without the picture's metadata
    out = io.BytesIO()
    bare.save(out, "PNG")
    return out.getvalue()


def _write(path: Path, data: bytes) -> None:
    with create_private(path) as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _files(place: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return [path for path in place.iterdir() if _NAME.match(path.name)]
    return []


def _remove(files: Collection[Path]) -> None:
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise AuditError(
                f"{path}: cannot be removed: {error.strerror}", hint="Let this user write the folder, and run it again."
            ) from error
