"""The second place of a log: where its checkpoints are kept, and with them what was purged of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.audit.checkpoint import DASH, ORIGIN, Checkpoint, keep, read_notes
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dnp_guard.audit.chain import Head
    from dnp_guard.audit.checkpoint import Signer


@dataclass(frozen=True, slots=True)
class SecondPlace:
    """Where the checkpoints of a log are kept.

    Attributes:
        file: of the checkpoints.
        signer: signs them; None where they are unsigned.
    """

    file: Path
    signer: Signer | None = None

    def notes(self) -> list[Checkpoint]:
        """The checkpoints that are there.

        Raises:
            AuditError: they cannot be read, or are signed and there is no key to sign by, or by another.
        """
        if not self.file.exists():
            return []
        notes = read_notes(self.file, self.signer.public if self.signer is not None else None)
        if self.signer is None and f"\n{DASH}" in self.file.read_text(encoding="utf-8"):
            raise AuditError(f"{self.file}: its checkpoints are signed", hint="Add --sign KEY.")
        return notes

    def vouch(self, head: Head, time: str, tombstones: Sequence[str] = ()) -> None:
        """Keep where a log ends, and what is purged of it.

        Args:
            head: where the log ends.
            time: as records write it.
            tombstones: hashes of those that are new.

        Raises:
            AuditError: it could not be kept.
        """
        origin = next((made.origin for made in reversed(self.notes())), ORIGIN)
        keep(self.file, Checkpoint(origin, head.seq, head.prev, time, tuple(tombstones)), self.signer)
