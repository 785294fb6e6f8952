"""Defaults that have changed: a policy that leaves such a key out asks otherwise than when it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dnp_guard.policy.read.scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGED: Final = (
    ("question", "template", "Is there ${term} in this image? (${definition})"),
    ("question", "allowed_template", "Is this ${allowed}?"),
)
"""A section, its key, and the default that it had before."""


def changed_defaults(text: bytes, file: str) -> Iterator[str]:
    """What a policy leaves out whose default has changed, and what to write to keep the one before.

    Args:
        text: of the policy; of one that extends another nothing is known, as that may say it.
        file: what problems name as the file.
    """
    data = scan(text, file).data
    if not isinstance(data, dict) or "extends" in data:
        return
    for section, key, before in CHANGED:
        own = data.get(section)
        if not isinstance(own, dict) or key not in own:
            yield (
                f"`{section}.{key}` is left out, and its default has changed, and with it the digest. "
                f'To ask as before, write `{section}: {{{key}: "{before}"}}`.'
            )
