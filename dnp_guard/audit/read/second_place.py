"""The second place of a log, which stores its checkpoints and the tombstones of purges."""

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
    """The file with the checkpoints of a log.

    Attributes:
        file: file of the checkpoints.
        signer: signs checkpoints; None for unsigned ones.
    """

    file: Path
    signer: Signer | None = None

    def notes(self) -> list[Checkpoint]:
        """Read the existing checkpoints.

        Raises:
            AuditError: they cannot be read, or are signed and the key is missing or another one.
        """
        if not self.file.exists():
            return []
        notes = read_notes(self.file, self.signer.public if self.signer is not None else None)
        if self.signer is None and f"\n{DASH}" in self.file.read_text(encoding="utf-8"):
            raise AuditError(f"{self.file}: its checkpoints are signed", hint="Add --sign KEY.")
        return notes

    def vouch(self, head: Head, time: str, tombstones: Sequence[str] = ()) -> None:
        """Write a checkpoint with the end of a log and its new tombstones.

        Args:
            head: end of the log.
            time: time in the format of records.
            tombstones: hashes of the new tombstones.

        Raises:
            AuditError: the checkpoint cannot be written.
        """
        origin = next((made.origin for made in reversed(self.notes())), ORIGIN)
        keep(self.file, Checkpoint(origin, head.seq, head.prev, time, tuple(tombstones)), self.signer)
