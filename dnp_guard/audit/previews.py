"""Previews of findings, in a folder beside the log: small and blurred, enough to check a claim and no more."""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageFilter

from dnp_guard.audit.shapes import PREVIEW_NAME
from dnp_guard.errors import AuditError
from dnp_guard.files import create_private

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from dnp_guard.audit.shapes import PreviewFields

LONGEST_SIDE: Final = 64
"""Pixels of a kept preview's longer side, at most."""

BLUR: Final = 3.0
"""Standard deviation of the Gaussian, in pixels of the kept preview."""

_NAME = re.compile(PREVIEW_NAME)
"""Nothing else in the folder is ever removed, whatever a record says."""


def folder(log: Path) -> Path:
    """Where the previews of a log are."""
    return log.with_name(f"{log.name}.previews")


def keep(place: Path, request: str, image: int, step: int | None, picture: Image.Image) -> PreviewFields:
    """Keep what little of a picture may be kept.

    Args:
        place: the folder; made where it is missing.
        request: id of the generation.
        image: index in the batch.
        step: None for the final look.
        picture: RGB; not altered.

    Returns:
        ``preview{file, sha256}`` of the record.

    Raises:
        AuditError: it cannot be written.
    """
    name = f"{request}-{image}-{'final' if step is None else step}.png"
    data = _png(picture)
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        _write(place / name, data)
    except OSError as error:
        message = f"{place / name}: cannot keep a preview: {error.strerror}"
        raise AuditError(message, hint="Let this user write the folder of the log.") from error
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def forget(place: Path, request: str, image: int) -> None:
    """Remove the previews of one image.

    Raises:
        AuditError: one cannot be removed.
    """
    _remove([path for path in _files(place) if path.name.startswith(f"{request}-{image}-")])


def named(record: Mapping[str, Any]) -> str | None:
    """The file that a record names; None where it names none."""
    preview = record.get("preview")
    name = preview.get("file") if isinstance(preview, dict) else None
    return name if isinstance(name, str) else None


def purge(
    place: Path, *, gone: Collection[str], staying: Collection[str], held: Collection[str], before: float
) -> None:
    """Remove what purged records named, and what is as old as they are and named by none.

    Args:
        place: the folder.
        gone: names in records that were purged.
        staying: names in records that are still there.
        held: ids of requests of which everything stays.
        before: the time, in seconds since the epoch, up to which records were purged.

    Raises:
        AuditError: one cannot be removed.
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


def _png(picture: Image.Image) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    blurred = small.filter(ImageFilter.GaussianBlur(BLUR))
    bare = Image.frombytes("RGB", blurred.size, blurred.tobytes())  # without what else came with the picture
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
