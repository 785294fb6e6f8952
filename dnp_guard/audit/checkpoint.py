"""Checkpoints: how many records a log has and what its head is, in a form that others can keep and sign.

The text is that of the C2SP tlog-checkpoint and signed-note formats; the root is the hash of the last record, not of a
Merkle tree. What is cut from the end of a log, or rewritten to its end, is found only against a checkpoint that was
kept where whoever changed the log could not reach it.
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
"""First line of a checkpoint whose log has no name of its own."""

_ED25519: Final = b"\x01"
DASH: Final = "\N{EM DASH} "
"""Begins the line of a signature."""
_BODY: Final = re.compile(
    r"(?P<origin>[^\n]+)\n(?P<count>0|[1-9][0-9]*)\n(?P<root>[A-Za-z0-9+/]{43}=)\n(?P<more>(?:.+\n)*)\Z"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log was at one time.

    Attributes:
        origin: the log's name.
        count: its records.
        root: hash of the last one, hexadecimal; 64 zeros for none.
        time: RFC 3339; "" where it is not known.
        purged: hashes of the tombstones that whoever made the checkpoint stands for.
    """

    origin: str
    count: int
    root: str
    time: str = ""
    purged: tuple[str, ...] = ()

    def text(self) -> str:
        """What is signed: origin, count, root in base64, and extension lines: the time, and a line per tombstone."""
        root = base64.b64encode(bytes.fromhex(self.root)).decode()
        time = [f"time {self.time}"] if self.time else []
        return "".join(
            f"{line}\n" for line in (self.origin, self.count, root, *time, *(f"purged {each}" for each in self.purged))
        )


class Signer:
    """Signs checkpoints with an Ed25519 key.

    Args:
        name: of the key in signatures; no spaces, no plus sign.
        seed: 32 bytes.

    Raises:
        AuditError: the name or the seed cannot be one.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        if not name or re.search(r"[\s+]", name):
            raise AuditError(f"{name!r} cannot be the name of a key", hint="Use no spaces and no plus sign.")
        if len(seed) != 32:  # noqa: PLR2004 (Ed25519's)
            raise AuditError("an Ed25519 key has 32 bytes", hint="Make one with: dnp-guard audit key FILE")
        self.name = name
        self._key = SigningKey(seed)

    @property
    def public(self) -> str:
        """The verifier key, as signed-note writes it: name, key id and key."""
        key = _ED25519 + bytes(self._key.verify_key)
        return f"{self.name}+{_key_id(self.name, bytes(self._key.verify_key)).hex()}+{base64.b64encode(key).decode()}"

    def sign(self, text: str) -> str:
        """The signature line of a text."""
        signature = bytes(self._key.sign(text.encode()).signature)
        encoded = base64.b64encode(_key_id(self.name, bytes(self._key.verify_key)) + signature).decode()
        return f"{DASH}{self.name} {encoded}\n"


def note(checkpoint: Checkpoint, signer: Signer | None = None) -> str:
    """A checkpoint as a signed note; without a signer, the same without a signature."""
    return f"{checkpoint.text()}\n{signer.sign(checkpoint.text()) if signer is not None else ''}"


def parse_note(text: str, public: str | None = None, *, file: str = "checkpoint") -> Checkpoint:
    """Read a checkpoint, and check who signed it.

    Args:
        text: of the note.
        public: verifier key, ``name+id+key``; None to take it unsigned.
        file: its name, for errors.

    Raises:
        AuditError: it is no checkpoint, or it has no valid signature of this key.
    """
    body, found, signatures = text.partition("\n\n")
    match = _BODY.match(body + "\n")
    if not found or match is None:
        raise AuditError(f"{file} is not a checkpoint", hint="It has an origin, a count and a root, a line each.")
    if public is not None:
        _check(body + "\n", signatures.splitlines(), public, file)
    more = [line.partition(" ")[::2] for line in match["more"].splitlines()]
    time = next((value for name, value in more if name == "time"), "")
    purged = tuple(value for name, value in more if name == "purged")
    return Checkpoint(match["origin"], int(match["count"]), base64.b64decode(match["root"]).hex(), time, purged)


def read_notes(path: str | os.PathLike[str], public: str | None = None) -> list[Checkpoint]:
    """Every checkpoint of a file, in the order in which they were appended.

    Args:
        path: the file.
        public: verifier key that has to have signed each.

    Raises:
        AuditError: the file cannot be read, or one of them is none or not signed by this key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: cannot read the checkpoints: {error}", hint="Check the path.") from error
    notes = re.findall(rf"(?:[^\n]+\n)+\n(?:{DASH}[^\n]+\n)*", text)
    if not notes or "".join(notes) != text:
        raise AuditError(f"{path}: what it holds are not checkpoints", hint="Give the file they were written to.")
    return [parse_note(each, public, file=f"{path}: checkpoint {place}") for place, each in enumerate(notes, start=1)]


def keep(path: str | os.PathLike[str], checkpoint: Checkpoint, signer: Signer | None = None) -> None:
    """Append a checkpoint to a file, and wait for the disk.

    Raises:
        AuditError: it could not be written.
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
    """The signer of a key file: a name, a space, and 32 bytes in base64.

    Raises:
        AuditError: the file cannot be read, others than its owner may, or it holds no such key.
    """
    try:
        mode = Path(path).stat().st_mode
        name, _, seed = Path(path).read_text(encoding="utf-8").strip().partition(" ")
        raw = base64.b64decode(seed, validate=True)
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: cannot read the key: {error}", hint="Make one with: dnp-guard audit key") from error
    if mode & 0o077:
        raise AuditError(f"{path}: others than its owner may read the key", hint=f"chmod 600 {path}")
    return Signer(name, raw)


def make_key(path: str | os.PathLike[str], name: str) -> Signer:
    """Make a key, in a file that only its owner may read.

    Raises:
        AuditError: the file is there already or cannot be made.
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
    wanted = f"{DASH}{name} "
    for line in lines:
        if not line.startswith(wanted):
            continue
        try:
            signature = base64.b64decode(line.removeprefix(wanted), validate=True)
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
