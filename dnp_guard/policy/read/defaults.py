"""Find changed defaults: a policy that omits their keys now asks other questions than when it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dnp_guard.policy.read.scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGED: Final = (
    ("question", "template", "Is there ${term} in this image? (${definition})"),
    ("question", "allowed_template", "Is this ${allowed}?"),
)
"""Section, key, and previous default."""


def changed_defaults(text: bytes, file: str) -> Iterator[str]:
    """Yield messages about omitted keys whose default has changed, with the text that keeps the previous default.

    Args:
        text: text of the policy. A policy that extends another gives no message, since its base may set the key.
        file: name of the file in problems.
    """
    data = scan(text, file).data
    if not isinstance(data, dict) or "extends" in data:
        return
    for section, key, before in CHANGED:
        own = data.get(section)
        if not isinstance(own, dict) or key not in own:
            yield (
                f"`{section}.{key}` is left out, and its default has changed, which changes the digest. "
                f'To ask as before, write `{section}: {{{key}: "{before}"}}`.'
            )
