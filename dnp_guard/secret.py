"""Keys and tokens, seen to before they go into a header: no error about a header can then quote one."""

from __future__ import annotations

import re

from dnp_guard.errors import DnpGuardError

_PLAIN = re.compile(r"[!-~]+")  # what a header carries without escapes: visible ASCII


def plain(secret: str, name: str) -> str:
    r"""Strip a secret of white space around it, as a file or a shell leaves there.

    Args:
        secret: a key or token.
        name: where it comes from, such as a variable; it is all that an error says.

    Raises:
        DnpGuardError: it is empty, or holds something that no header carries.

    >>> plain("hunter2\r\n", "TOKEN")
    'hunter2'
    """
    stripped = secret.strip()
    if not stripped:
        raise DnpGuardError(f"{name} is empty", hint="Set it to the key, or not at all.")
    if not _PLAIN.fullmatch(stripped):
        raise DnpGuardError(
            f"{name} holds a space, a control character or a letter beyond ASCII, which no key does",
            hint="Copy the key once more, on one line.",
        )
    return stripped
