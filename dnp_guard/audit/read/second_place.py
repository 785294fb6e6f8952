"""The second place of an audit log: a file elsewhere with its checkpoints, which also name the tombstones of purges."""

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
    """The file with the checkpoints of a log, in a place where the writer of the log cannot change it.

    Attributes:
        file: file of the checkpoints.
        signer: signs new checkpoints, and checks the signatures of existing ones; None for unsigned ones.
    """

    file: Path
    signer: Signer | None = None

    def notes(self) -> list[Checkpoint]:
        """Read the existing checkpoints.

        Raises:
            AuditError: they cannot be read, or are signed and there is no key, or are not signed with the given key.
        """
        if not self.file.exists():
            return []
        notes = read_notes(self.file, self.signer.public if self.signer is not None else None)
        if self.signer is None and f"\n{DASH}" in self.file.read_text(encoding="utf-8"):
            raise AuditError(f"{self.file}: its checkpoints are signed", hint="Add --sign KEY.")
        return notes

    def vouch(self, head: Head, time: str, tombstones: Sequence[str] = ()) -> None:
        """Write a checkpoint that confirms the end of the log and the tombstones of a purge.

        Args:
            head: end of the log.
            time: time of the checkpoint, in the format of records.
            tombstones: hashes of the tombstones.

        Raises:
            AuditError: the checkpoint cannot be written.
        """
        origin = next((made.origin for made in reversed(self.notes())), ORIGIN)
        keep(self.file, Checkpoint(origin, head.seq, head.prev, time, tuple(tombstones)), self.signer)
