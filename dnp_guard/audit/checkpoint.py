"""Checkpoints: the number of records in a log and the hash of the last one, as a text to sign and store elsewhere.

The text follows the C2SP tlog-checkpoint and signed-note formats, but the root is the hash of the last record, not of a
Merkle tree. Whether a log was cut, or rewritten up to its end, is found only with a checkpoint in a place that the
person who changed the log could not change.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from dnp_guard.errors import AuditError
from dnp_guard.files import create_private

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGIN: Final = "dnp-guard/audit"
"""Default name of a log, the first line of its checkpoints."""

_ED25519: Final = b"\x01"
DASH: Final = "\N{EM DASH} "
"""Prefix of a signature line."""
_BODY: Final = re.compile(
    r"(?P<origin>[^\n]+)\n(?P<count>0|[1-9][0-9]*)\n(?P<root>[A-Za-z0-9+/]{43}=)\n(?P<more>(?:.+\n)*)\Z"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log at one time.

    Attributes:
        origin: name of the log.
        count: number of records.
        root: hash of the last record, in hexadecimal; 64 zeros for an empty log.
        time: time in RFC 3339; "" if unknown.
        purged: hashes of the tombstones (lines that replace purged records) that the checkpoint's author confirms.
    """

    origin: str
    count: int
    root: str
    time: str = ""
    purged: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text to sign: origin, count, root in base64, and extension lines for time and tombstones."""
        root = base64.b64encode(bytes.fromhex(self.root)).decode()
        time = [f"time {self.time}"] if self.time else []
        return "".join(
            f"{line}\n"
            for line in (self.origin, self.count, root, *time, *(f"purged {tombstone}" for tombstone in self.purged))
        )


class Signer:
    """Signs checkpoints with an Ed25519 key.

    Args:
        name: name of the key in signatures, without spaces or plus signs.
        seed: private key, 32 bytes.

    Raises:
        AuditError: the name or the seed is invalid.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        if not name or re.search(r"[\s+]", name):
            raise AuditError(f"{name!r} cannot be the name of a key", hint="Use no spaces and no plus sign.")
        if len(seed) != 32:  # noqa: PLR2004 (size of an Ed25519 key)
            raise AuditError("an Ed25519 key has 32 bytes", hint="Make one with: dnp-guard audit key FILE")
        self.name = name
        self._key = SigningKey(seed)

    @property
    def public(self) -> str:
        """The public key in signed-note format: name, key id and key."""
        key = _ED25519 + bytes(self._key.verify_key)
        return f"{self.name}+{_key_id(self.name, bytes(self._key.verify_key)).hex()}+{base64.b64encode(key).decode()}"

    def sign(self, text: str) -> str:
        """Sign a text, and return the signature as a line of a signed note."""
        signature = bytes(self._key.sign(text.encode()).signature)
        encoded = base64.b64encode(_key_id(self.name, bytes(self._key.verify_key)) + signature).decode()
        return f"{DASH}{self.name} {encoded}\n"


def note(checkpoint: Checkpoint, signer: Signer | None = None) -> str:
    """Format a checkpoint as a signed note, or without a signature if there is no signer."""
    return f"{checkpoint.text()}\n{signer.sign(checkpoint.text()) if signer is not None else ''}"


def parse_note(text: str, public: str | None = None, *, file: str = "checkpoint") -> Checkpoint:
    """Read a checkpoint, and check its signature.

    Args:
        text: text of the note.
        public: public key, ``name+id+key``, that must have signed it; None to skip this check.
        file: name of the file, for errors.

    Raises:
        AuditError: the text is not a checkpoint, or has no valid signature of this key.
    """
    body, separator, signatures = text.partition("\n\n")
    match = _BODY.match(body + "\n")
    if not separator or match is None:
        raise AuditError(
            f"{file} is not a checkpoint", hint="A checkpoint has a line for the origin, the count and the root."
        )
    if public is not None:
        _check(body + "\n", signatures.splitlines(), public, file)
    more = [line.partition(" ")[::2] for line in match["more"].splitlines()]
    time = next((value for name, value in more if name == "time"), "")
    purged = tuple(value for name, value in more if name == "purged")
    return Checkpoint(match["origin"], int(match["count"]), base64.b64decode(match["root"]).hex(), time, purged)


def read_notes(path: str | os.PathLike[str], public: str | None = None) -> list[Checkpoint]:
    """Read every checkpoint of a file, in order.

    Args:
        path: the file.
        public: public key that must have signed the checkpoints; None to skip this check.

    Raises:
        AuditError: the file cannot be read, or a checkpoint is invalid or not signed by this key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: cannot read the checkpoints: {error}", hint="Check the path.") from error
    notes = re.findall(rf"(?:[^\n]+\n)+\n(?:{DASH}[^\n]+\n)*", text)
    if not notes or "".join(notes) != text:
        raise AuditError(f"{path}: the file has no checkpoints", hint="Give the file that checkpoints are written to.")
    return [parse_note(part, public, file=f"{path}: checkpoint {place}") for place, part in enumerate(notes, start=1)]


def keep(path: str | os.PathLike[str], checkpoint: Checkpoint, signer: Signer | None = None) -> None:
    """Append a checkpoint to a file, and wait until it is on the disk.

    Raises:
        AuditError: the file cannot be written.
    """
    text = note(checkpoint, signer).encode()
    try:
        with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditError(
            f"{path}: cannot write a checkpoint: {error.strerror}", hint="Let this user append to the file."
        ) from error


def read_signer(path: str | os.PathLike[str]) -> Signer:
    """Read a signer from a key file, which contains a name, a space, and a private key of 32 bytes in base64.

    Raises:
        AuditError: the file cannot be read, users other than its owner may read it, or it contains no such key.
    """
    try:
        mode = Path(path).stat().st_mode
        name, _, seed = Path(path).read_text(encoding="utf-8").strip().partition(" ")
        raw = base64.b64decode(seed, validate=True)
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: cannot read the key: {error}", hint="Make one with: dnp-guard audit key") from error
    if mode & 0o077:
        raise AuditError(f"{path}: users other than its owner can read the key", hint=f"chmod 600 {path}")
    return Signer(name, raw)


def make_key(path: str | os.PathLike[str], name: str) -> Signer:
    """Create a key to sign checkpoints with, in a file that only its owner may read.

    Raises:
        AuditError: the file already exists or cannot be created.
    """
    seed = os.urandom(32)
    signer = Signer(name, seed)
    try:
        with create_private(Path(path)) as file:
            file.write(f"{name} {base64.b64encode(seed).decode()}\n".encode())
    except OSError as error:
        raise AuditError(f"{path}: cannot make the key: {error.strerror}", hint="Give another path.") from error
    return signer


def _check(body: str, lines: Sequence[str], public: str, file: str) -> None:
    name, key = _public(public)
    prefix = f"{DASH}{name} "
    for line in lines:
        if not line.startswith(prefix):
            continue
        try:
            signature = base64.b64decode(line.removeprefix(prefix), validate=True)
        except ValueError:
            continue
        if signature[:4] == _key_id(name, key) and _verifies(key, body.encode(), signature[4:]):
            return
    raise AuditError(
        f"{file} has no valid signature of {name}", hint="It was changed, or signed with another key. Do not trust it."
    )


def _public(text: str) -> tuple[str, bytes]:
    name, _, rest = text.strip().partition("+")
    identity, _, encoded = rest.partition("+")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if len(key) != 33 or key[:1] != _ED25519 or _key_id(name, key[1:]).hex() != identity:  # noqa: PLR2004 (kind, key)
        raise AuditError(f"{text!r} is not a verifier key", hint="It has the form name+id+key, as audit key prints it.")
    return name, key[1:]


def _key_id(name: str, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key).digest()[:4]


def _verifies(key: bytes, text: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(text, signature)
    except (BadSignatureError, ValueError):
        return False
    return True
