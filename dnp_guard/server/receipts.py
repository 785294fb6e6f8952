"""Receipts: signed decisions about single images, which whoever delivers an image can verify.

A receipt is a JSON Web Signature in compact form (RFC 7515) with Ed25519 (RFC 8037), so that any library for JSON Web
Tokens can verify it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from dnp_guard.errors import DnpGuardError
from dnp_guard.files import create_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TYPE = "dnp-guard-receipt"
"""``typ`` of the header, so that a signature made for another purpose is not accepted."""


class ReceiptRefused(DnpGuardError):
    """A receipt that proves nothing: it is malformed, or the given key did not sign it."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Signs receipts.

    Args:
        seed: seed of the private key, 32 bytes.
        seconds: seconds for which a receipt is valid.
    """

    seed: bytes
    seconds: int

    @property
    def public(self) -> str:
        """The public key, in base64."""
        return base64.b64encode(bytes(SigningKey(self.seed).verify_key)).decode()

    def sign(self, claims: Mapping[str, Any], now: float) -> str:
        """Sign claims as a receipt, and add the time of issue and of expiry."""
        key = SigningKey(self.seed)
        header = {"alg": "EdDSA", "typ": TYPE, "kid": key_id(bytes(key.verify_key))}
        payload = {"v": 1, **claims, "iat": int(now), "exp": int(now) + self.seconds}
        signed = f"{_encoded(header)}.{_encoded(payload)}"
        return f"{signed}.{_text(key.sign(signed.encode()).signature)}"


def issuer(path: Path, seconds: int) -> Issuer:
    """Read an issuer from a key file, which holds 32 bytes in base64.

    Raises:
        DnpGuardError: the file cannot be read, others may read it, its group may change it, or it holds no key.
    """
    try:
        seed = base64.b64decode(path.read_bytes().strip(), validate=True)
        mode = path.stat().st_mode
    except OSError as error:
        raise DnpGuardError(f"{path}: {error.strerror}", hint=_MAKE) from error
    except binascii.Error:
        seed, mode = b"", 0
    if len(seed) != 32:  # noqa: PLR2004 (bytes of an Ed25519 key)
        raise DnpGuardError(f"{path} holds no key", hint=_MAKE)
    if mode & 0o027:
        message = f"{path}: others may read the key, or its group may change it"
        raise DnpGuardError(message, hint=f"chmod 600 {path}")
    return Issuer(seed, seconds)


def new_key(path: Path) -> str:
    """Make a key in a file that only its owner may read.

    Returns:
        The public key, in base64.

    Raises:
        DnpGuardError: the file exists already, or cannot be made.
    """
    seed = os.urandom(32)
    try:
        with create_private(path) as file:
            file.write(base64.b64encode(seed) + b"\n")
    except OSError as error:
        raise DnpGuardError(f"{path}: {error.strerror}", hint="Give another path.") from error
    return Issuer(seed, 0).public


def read(receipt: str, public: str) -> dict[str, Any]:
    """Verify a receipt's signature, and return its claims; the expiry is not checked.

    Args:
        receipt: a receipt in compact form.
        public: the public key, in base64.

    Raises:
        ReceiptRefused: the text is not a receipt, or another key signed it.
        DnpGuardError: the public key is malformed.
    """
    try:
        raw = base64.b64decode(public.strip(), validate=True)
        key = VerifyKey(raw)
    except (binascii.Error, ValueError, TypeError) as error:
        raise DnpGuardError(
            "the public key is not 32 bytes in base64", hint="Use what `receipt key` prints."
        ) from error
    signed, _, signature = receipt.strip().rpartition(".")
    try:
        header, payload = (json.loads(_decoded(part)) for part in signed.split("."))
        known = header["alg"] == "EdDSA" and header["typ"] == TYPE and "crit" not in header and payload["v"] == 1
        raw_signature = _decoded(signature)
    except (ValueError, KeyError, TypeError) as error:
        raise ReceiptRefused("this is not a receipt", hint="Pass it exactly as the service returned it.") from error
    if not known or not _verifies(key, signed.encode(), raw_signature):
        raise ReceiptRefused("the signature does not match the key", hint="Do not deliver the image.")
    return dict(payload)


def key_id(public: bytes) -> str:
    """Return a name for a public key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


_MAKE = "Make one with: dnp-guard receipt key FILE"


def _verifies(key: VerifyKey, text: bytes, signature: bytes) -> bool:
    try:
        key.verify(text, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def _encoded(value: Mapping[str, Any]) -> str:
    return _text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
