"""Brings a policy of an older format up to the present one, format by format."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from ruamel.yaml import YAML

from dnp_guard.errors import PolicyError
from dnp_guard.policy.read.scan import scan
from dnp_guard.suggest import did_you_mean

FORMAT = 1
"""The present format."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""From the data of one format to that of the next; ``format`` itself is set afterwards."""

UPGRADES: Mapping[int, Upgrade] = {}
"""By the format that each begins with. Format 1 is the first one published, so there is none yet."""


def migrate(text: bytes, file: str, upgrades: Mapping[int, Upgrade] | None = None) -> bytes | None:
    """Upgrade a policy to the present format; the result is still to be checked.

    Comments are not kept where something has to change.

    Args:
        text: of the policy.
        file: what problems name as the file.
        upgrades: by the format that each begins with; the package's own unless given.

    Returns:
        The new text; None where the policy is of the present format.

    Raises:
        PolicyError: the text is no data, says no format, or one that no upgrade begins with.
    """
    upgrades = UPGRADES if upgrades is None else upgrades
    document = scan(text, file)
    if document.problems:
        raise PolicyError(document.problems)
    data = document.data
    version = data.get("format") if isinstance(data, dict) else None
    version = None if isinstance(version, bool) else version
    if version == FORMAT:
        return None
    known = [*upgrades, FORMAT]
    while version != FORMAT:
        if not isinstance(version, int) or version not in upgrades:
            message = (
                f"no way from format `{version}` to format {FORMAT}" if version is not None else "`format` is missing"
            )
            hint = did_you_mean(str(version), [str(each) for each in known], "`format: {}`")
            raise PolicyError([document.problem(("format",), "unknown-format", message, hint)])
        data = {**upgrades[version](data), "format": version + 1}
        version += 1
    return _dump({"format": FORMAT, **data})


def _dump(data: Mapping[str, Any]) -> bytes:
    yaml = YAML(pure=True)
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.BytesIO()
    yaml.dump(dict(data), out)
    return out.getvalue()
