"""Brings an older policy up to date: to the present format, format by format, and without what is gone."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from dnp_guard.errors import PolicyError, did_you_mean
from dnp_guard.policy.read.characters import decode
from dnp_guard.policy.read.removed import without_removed
from dnp_guard.policy.read.scan import scan

if TYPE_CHECKING:
    from dnp_guard.policy.read.document import Document

FORMAT = 1
"""The present format."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""From the data of one format to that of the next; ``format`` itself is set afterwards."""

UPGRADES: Mapping[int, Upgrade] = {}
"""By the format that each begins with. Format 1 is the first one published, so there is none yet."""


def migrate(text: bytes, file: str, upgrades: Mapping[int, Upgrade] | None = None) -> bytes | None:
    """Upgrade a policy to the present format, and take out what is gone; the result is still to be checked.

    Comments are not kept where the format changes.

    Args:
        text: of the policy.
        file: what problems name as the file.
        upgrades: by the format that each begins with; the package's own unless given.

    Returns:
        The new text; None where nothing has to change.

    Raises:
        PolicyError: the text is no data, says no format, or one that no upgrade begins with.
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
