"""Encode stored pictures as ``data:`` addresses, for a page that loads no other files."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Final

from PIL import Image

from dnp_guard.audit import previews
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LONGEST_SIDE: Final = 256
"""Most pixels of the longer side of a picture on a page."""

MOST: Final = 200
"""Most pictures on a page."""

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def embedded(place: Path, names: Iterable[str], key: bytes | None) -> dict[str, str]:
    """Return stored pictures as ``data:`` addresses, by file name.

    Args:
        place: folder of the log's stored pictures.
        names: file names of the pictures; missing files are left out.
        key: key of encrypted pictures; None if there is none.

    Raises:
        AuditError: a picture cannot be read, or is encrypted and the key is missing or wrong.
    """
    addresses: dict[str, str] = {}
    for name in names:
        if len(addresses) == MOST:
            break
        file = place / name
        if previews.is_name(name) and file.is_file():
            try:
                with Image.open(io.BytesIO(previews.shown(file, key))) as picture:
                    small = picture.convert("RGB")
            except _UNREADABLE as error:
                raise AuditError(f"{file}: the picture cannot be read", hint="Leave out --pictures.") from error
            small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            data = io.BytesIO()
            small.save(data, "JPEG", quality=80)
            addresses[name] = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return addresses
