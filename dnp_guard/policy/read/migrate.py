"""Update an older policy to the current format, and delete keys that were removed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from dnp_guard.errors import PolicyError, did_you_mean
from dnp_guard.policy.read.characters import decode
from dnp_guard.policy.read.removed_keys import without_removed
from dnp_guard.policy.read.scan import scan

if TYPE_CHECKING:
    from dnp_guard.policy.read.document import Document

FORMAT = 1
"""The current format."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Converts the data of one format to the next; the caller sets ``format``."""

UPGRADES: Mapping[int, Upgrade] = {}
"""Upgrades by the format that they start from. Format 1 is the first, so there are none yet."""


def migrate(text: bytes, file: str, upgrades: Mapping[int, Upgrade] | None = None) -> bytes | None:
    """Upgrade a policy to the current format, and delete removed keys; the result is not validated.

    An upgrade of the format loses comments.

    Args:
        text: text of the policy.
        file: name of the file in problems.
        upgrades: upgrades by the format that they start from; the package's own by default.

    Returns:
        The new text; None if nothing has to change.

    Raises:
        PolicyError: the text is not plain data, or has no format or one without an upgrade.
    """
    upgrades = UPGRADES if upgrades is None else upgrades
    document = scan(text, file)
    if document.problems:
        raise PolicyError(document.problems)
    old = decode(text, file)
    new = without_removed(old if _format(document) == FORMAT else _upgraded(document, upgrades))
    return None if new == old else new.encode()


def _format(document: Document) -> object:
    version = document.data.get("format") if isinstance(document.data, dict) else None
    return None if isinstance(version, bool) else version


def _upgraded(document: Document, upgrades: Mapping[int, Upgrade]) -> str:
    data, version = document.data, _format(document)
    while version != FORMAT:
        if not isinstance(version, int) or version not in upgrades:
            message = (
                f"no way from format `{version}` to format {FORMAT}" if version is not None else "`format` is missing"
            )
            hint = did_you_mean(str(version), [str(known) for known in (*upgrades, FORMAT)], "`format: {}`")
            raise PolicyError([document.problem(("format",), "unknown-format", message, hint)])
        data = {**upgrades[version](data), "format": version + 1}
        version += 1
    return _dump({"format": FORMAT, **data})


def _dump(data: Mapping[str, Any]) -> str:
    yaml = YAML(pure=True)
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(dict(data), out)
    return out.getvalue()
