"""Signed policies: an Ed25519 signature over a manifest of every file of a policy."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from dnp_guard.canonical import canonical
from dnp_guard.errors import DnpGuardError, PolicyError, Problem
from dnp_guard.policy.force import serials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dnp_guard.policy.force.store import Store

_KEY_BYTES = 32
_LARGEST = 4 * 1024 * 1024

ENDING = ".sig.json"
"""Ending of the name of a signature file, which lies beside the policy or in the store's folder."""

_LABEL = b"dnp-guard policy manifest 1\0"
"""Prefix of the signed bytes, so that a signature made for another purpose is not valid here."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content that a signature covers.

    Attributes:
        name: name of the policy, or of the store's folder.
        tenant: tenant that the policy is for; empty for everyone.
        serial: number of the issue, higher than before. To roll back, sign the old text with a higher serial.
        expires: when the signature expires, in UTC.
        files: SHA-256 of every file in hexadecimal, by path relative to the signature.
        author: author of the policy; empty if not stated.
    """

    name: str
    tenant: str
    serial: int
    expires: str
    files: Mapping[str, str]
    author: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """The content of an accepted signature.

    Attributes:
        signer: public key, in base64.
        serial: number of the issue.
        author: author of the policy; None if not stated.
        expires: when the signature expires.
    """

    signer: str
    serial: int
    author: str | None
    expires: datetime


def place(source: Path) -> Path:
    """Return the path of the signature file of a policy file or of a folder of policies."""
    return source / f"store{ENDING}" if source.is_dir() else source.with_name(source.stem + ENDING)


def new_key() -> tuple[str, str]:
    """Return a new private key and its public key, in base64."""
    key = SigningKey.generate()
    return _text(bytes(key)), _text(bytes(key.verify_key))


def sign(
    source: Path, store: Store, key: str, *, serial: int, expires: datetime, tenant: str = "", author: str = ""
) -> Path:
    """Sign a policy file or a folder of policies, and write the signature file.

    Args:
        source: file of the policy, or the folder.
        store: the policies read from the source.
        key: private key, in base64.
        serial: number of this issue, higher than every previous one.
        expires: when the signature expires.
        tenant: tenant that the policy is for; empty for everyone.
        author: author of the policy; empty to omit.

    Returns:
        The path of the signature file.

    Raises:
        DnpGuardError: the key is invalid.
    """
    signing = SigningKey(_bytes(key))
    ends = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = asdict(Manifest(_name(source), tenant, serial, ends, _files(source, store), author))
    if not author:
        del manifest["author"]  # so that a version without authors accepts it
    document = {"manifest": manifest, "signature": _text(signing.sign(_signed(manifest)).signature)}
    file = place(source)
    file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return file


def verify(
    source: Path, store: Store, key: str, *, tenant: str | None = None, lowest: int = 0, now: datetime | None = None
) -> Manifest:
    """Check the signature of a policy file or a folder of policies, and return the content that it covers.

    Args:
        source: file of the policy, or the folder.
        store: the policies read from the source. Their bytes as read are checked, not the current files.
        key: public key, in base64.
        tenant: tenant that the guard serves.
        lowest: lowest serial to accept.
        now: time to compare the expiry with; the current time by default.

    Raises:
        PolicyError: the signature is missing, altered, expired, for another tenant, or has a lower serial.
        DnpGuardError: the key is invalid.
    """
    file = place(source)
    public = _public(key)
    try:
        document: Any = json.loads(_read(file))
        data, signature = document["manifest"], document["signature"]
        manifest = Manifest(**data)
    except OSError:
        raise _refused(file, "unsigned", "no signature.", "Sign it: dnp-guard policy sign.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _refused(file, "bad-signature", "not a signature file.", "Sign the policy again.") from None
    try:
        public.verify(_signed(data), _bytes(signature))
    except (BadSignatureError, DnpGuardError, TypeError, ValueError, RecursionError):
        raise _refused(file, "bad-signature", "the signature does not fit the key.", "Sign it again.") from None
    if differing := _differing(manifest.files, _files(source, store)):
        raise _refused(file, "altered", f"changed since it was signed: {', '.join(differing)}.", "Sign it again.")
    if datetime.fromisoformat(manifest.expires) <= (now or datetime.now(UTC)):
        raise _refused(file, "expired", f"expired at {manifest.expires}.", "Sign it again, with a higher serial.")
    if manifest.tenant and manifest.tenant != tenant:
        raise _refused(file, "other-tenant", f"signed for tenant {manifest.tenant!r} alone.", "Sign it for this one.")
    _not_rolled_back(file, manifest, lowest)
    return manifest


def _not_rolled_back(file: Path, manifest: Manifest, lowest: int) -> None:
    if manifest.serial < lowest:
        message = f"serial {manifest.serial} is lower than {lowest}, which was in force."
        raise _refused(file, "rolled-back", message, "To roll back, sign the old text with a higher serial.")


class Verifier:
    """Checks signatures of policies, and refuses a rollback: a lower serial number, or one reused for another text.

    Args:
        key: public key, in base64.
        tenant: tenant that the guard serves.
        recorded: returns the highest serial in the records of earlier runs, given the key and the policy's name. It is
            used if no serial is stored, for example because the file was deleted.

    Raises:
        DnpGuardError: the key is invalid.
    """

    def __init__(self, key: str, tenant: str | None, recorded: Callable[[str, str], int] | None = None) -> None:
        _public(key)
        self._key, self._tenant, self._recorded, self._file = key, tenant, recorded, serials.path()
        self._began = False

    def check(self, source: Path, store: Store) -> Signed:
        """Check that a store is signed, and that its serial is acceptable.

        Raises:
            PolicyError: the store has no valid signature, or its serial is not acceptable.
            DnpGuardError: the stored serials cannot be read.
        """
        return self._checked(source, store)[0]

    def take(self, source: Path, store: Store) -> Signed:
        """Check that a store is signed, and remember its serial, so that no lower one is accepted from now on."""
        signed, named, digest = self._checked(source, store)
        serials.keep(self._file, named, signed.serial, digest)
        self._began = True
        return signed

    def _checked(self, source: Path, store: Store) -> tuple[Signed, str, str]:
        manifest, file = verify(source, store, self._key, tenant=self._tenant), place(source)
        if self._began and not self._file.exists():
            message = f"{self._file}, which stores the serials that were in force, is gone."
            raise _refused(file, "serials-gone", message, "Restore it, or restart the guard.")
        named = serials.key_of(self._key, manifest.name, manifest.tenant)
        digest = hashlib.sha256(canonical(dict(manifest.files))).hexdigest()
        serial, before = serials.highest(self._file, named)
        if not serial and self._recorded is not None:
            serial = self._recorded(self._key.strip(), manifest.name)
        _not_rolled_back(file, manifest, serial)
        if manifest.serial == serial and before not in {"", digest}:
            message = f"serial {serial} was in force with another text."
            raise _refused(file, "serial-reused", message, "Sign it with a higher serial.")
        expires = datetime.fromisoformat(manifest.expires)
        return Signed(self._key.strip(), manifest.serial, manifest.author or None, expires), named, digest


def verifier(key: str | None, tenant: str | None, recorded: Callable[[str, str], int] | None = None) -> Verifier | None:
    """Return a verifier for a public key; None if there is no key."""
    return Verifier(key, tenant, recorded) if key is not None else None


def _files(source: Path, store: Store) -> dict[str, str]:
    folder = place(source).parent
    return {os.path.relpath(path, folder).replace(os.sep, "/"): digest for path, digest in store.inputs.items()}


def _differing(signed: Mapping[str, str], read: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*signed, *read} if signed.get(name) != read.get(name))


def _name(source: Path) -> str:
    return source.resolve().name if source.is_dir() else source.stem


def _signed(manifest: Mapping[str, Any]) -> bytes:
    return _LABEL + canonical(manifest)


def _refused(file: Path, code: str, message: str, hint: str) -> PolicyError:
    return PolicyError([Problem(str(file), 0, 0, code, message, hint)])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _public(key: str) -> VerifyKey:
    raw = _bytes(key)
    if len(raw) != _KEY_BYTES:
        message = f"a public key has {_KEY_BYTES} bytes, and this one has {len(raw)}"
        raise DnpGuardError(message, hint="Give the key that `policy sign --new-key` printed, whole.")
    return VerifyKey(raw)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        raw = opened.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise ValueError  # no signature is so long
    return raw


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError, AttributeError):
        raise DnpGuardError(
            "a key or signature is not base64", hint="Use the output of `policy sign --new-key`."
        ) from None
