"""Redact prompts for the log. Prompts are personal data, so by default only a keyed hash is written.

The key is ``DNP_GUARD_AUDIT_KEY``, or else the content of ``<log>.key`` beside the log, which is created from 32 random
bytes and readable by its owner only. With the key, one can test whether a given prompt was used; nobody can compute a
prompt from its hash.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from dnp_guard.errors import AuditError
from dnp_guard.files import create_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PromptMode = Literal["hmac", "redacted", "plain", "none"]

KEY_VARIABLE: Final = "DNP_GUARD_AUDIT_KEY"
_SHORTEST_KEY = 16


def prompt_field(text: str, how: PromptMode, key: bytes = b"") -> dict[str, str]:
    """Make the ``prompt`` object of a record, in the form that the policy sets.

    Args:
        text: the prompt.
        how: ``hmac`` writes the HMAC-SHA-256 of the prompt in hexadecimal, ``redacted`` replaces every word by its
            length, ``plain`` writes the prompt, ``none`` writes nothing.
        key: key of the HMAC, from :func:`prompt_key`.

    Returns:
        A mapping with one field, named after ``how``; empty for ``none``.

    Raises:
        AuditError: ``how`` is ``hmac`` and there is no key.

    >>> prompt_field("a red  circle", "redacted")
    {'redacted': '[1] [3]  [6]'}
    """
    if how == "none":
        return {}
    if how == "plain":
        return {how: text}
    if how == "redacted":
        return {how: re.sub(r"\S+", lambda word: f"[{len(word[0])}]", text)}
    if not key:
        raise AuditError("no key is given to hash the prompts with", hint=f"Set {KEY_VARIABLE}.")
    return {how: hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()}


class Redaction:
    """Redacts prompts and names of persons for the log of one guard.

    Args:
        log: the audit log, beside which the key is stored; None for a random key, which this object keeps.
        how: form of prompts under the policy in force; for ``hmac``, the key is read immediately.

    Raises:
        AuditError: the key cannot be read or created.
    """

    def __init__(self, log: Path | None, how: PromptMode) -> None:
        self._log = log
        self._key = prompt_key(log) if how == "hmac" else b""

    def of(self, how: PromptMode) -> Callable[[str], dict[str, str]]:
        """Return a function that makes the ``prompt`` object of a record from a prompt.

        Args:
            how: form of prompts under the policy; see :func:`prompt_field`.

        Raises:
            AuditError: the key is needed for the first time, and it cannot be read or created.
        """
        if how == "hmac" and not self._key:
            self._key = prompt_key(self._log)
        return partial(prompt_field, how=how, key=self._key)

    def subject(self, name: str) -> str:
        """Hash a person's name for the field ``subject`` of a record, as :func:`subject_hash` does.

        Raises:
            AuditError: the key cannot be read or created.
        """
        self._key = self._key or prompt_key(self._log)
        return _subject(name, self._key)


def subject_hash(subject: str, log: Path | None) -> str:
    """Return the HMAC-SHA-256 of a person's name with the log's key; it differs from that of a prompt of equal text.

    Args:
        subject: the person's name, as the program that generates the image gives it.
        log: the audit log, beside which the key is stored; None for a random key.

    Raises:
        AuditError: the key cannot be read or created.
    """
    return _subject(subject, prompt_key(log))


def key_file(log: Path) -> Path:
    """Return the path of a log's key: ``audit.jsonl.key`` for ``audit.jsonl``."""
    return log.with_name(f"{log.name}.key")


def prompt_key(log: Path | None = None) -> bytes:
    """Read the key for hashes of prompts from ``DNP_GUARD_AUDIT_KEY``, or else from the file beside the log.

    The file is created if it is missing.

    Args:
        log: the audit log; None for a random key.

    Raises:
        AuditError: the key is too short, users other than its owner may read the file, or it cannot be read or created.
    """
    if (given := os.environ.get(KEY_VARIABLE)) is not None:
        return _long_enough(given.encode("utf-8", "surrogateescape"), KEY_VARIABLE)
    if log is None:
        return secrets.token_bytes(32)
    path = key_file(log)
    try:
        if not path.exists():
            _create(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise AuditError(f"{path}: users other than its owner can read the audit key", hint=f"chmod 600 {path}")
        return _long_enough(path.read_bytes().strip(), str(path))
    except OSError as error:
        raise AuditError(
            f"{path}: cannot read or make the audit key: {error.strerror}",
            hint=f"Let this user write the folder, or set {KEY_VARIABLE}.",
        ) from error


def _subject(name: str, key: bytes) -> str:
    return hmac.digest(key, b"subject\0" + name.encode("utf-8", "surrogatepass"), "sha256").hex()


def _create(path: Path) -> None:
    # Link the complete file into place, so that two processes that start together never read half a key.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with create_private(draft) as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()


def _long_enough(key: bytes, where: str) -> bytes:
    if len(key) < _SHORTEST_KEY:
        raise AuditError(
            f"{where}: the audit key has fewer than {_SHORTEST_KEY} bytes",
            hint='Make one with: python -c "import secrets; print(secrets.token_hex(32))"',
        )
    return key
