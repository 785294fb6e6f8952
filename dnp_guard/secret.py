"""Check keys and tokens before they go into a header, so that no error about a header can quote one."""

from __future__ import annotations

import re

from dnp_guard.errors import DnpGuardError

_PLAIN = re.compile(r"[!-~]+")  # what a header carries without escapes: visible ASCII


def plain(secret: str, name: str) -> str:
    r"""Check a secret, and strip it of the surrounding white space that files and shells often add.

    Args:
        secret: a key or token.
        name: origin of the secret, such as an environment variable; errors name it, and never quote the secret.

    Raises:
        DnpGuardError: the secret is empty, or contains characters that a header cannot carry.

    >>> plain("hunter2\r\n", "TOKEN")
    'hunter2'
    """
    stripped = secret.strip()
    if not stripped:
        raise DnpGuardError(f"{name} is empty", hint="Set it to the key, or unset it.")
    if not _PLAIN.fullmatch(stripped):
        raise DnpGuardError(
            f"{name} contains a space, a control character or a letter beyond ASCII, which no key does",
            hint="Copy the key again, on one line.",
        )
    return stripped
