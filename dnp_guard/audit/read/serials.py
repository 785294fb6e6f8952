"""Read the serial numbers of signed policies from an audit log, in case the file that stores them is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dnp_guard.audit.chain import is_record, parse
from dnp_guard.audit.events import PolicyLoaded
from dnp_guard.audit.read.lines import read_lines

_LOADED: Final = PolicyLoaded.name.encode()


def highest_serial(log: Path, signer: str, name: str) -> int:
    """Return the highest serial number with which a signed policy was in force; 0 if the log has none.

    Args:
        log: the log, in a file or a SQLite database; it need not exist.
        signer: public key of the policy's signature, in base64.
        name: name of the policy's file without its suffix, or of the folder of a policy store.

    Raises:
        AuditError: the log cannot be read.
    """
    highest = 0
    for line in read_lines(log) if log.exists() else ():
        if _LOADED not in line.data:
            continue
        record = parse(line.data) or {}
        loaded = record.get("loaded") if is_record(record) else None
        if not isinstance(loaded, dict) or loaded.get("signer") != signer:
            continue
        source, serial = Path(str(loaded.get("source", ""))), loaded.get("serial")
        if name in {source.name, source.stem} and isinstance(serial, int):
            highest = max(highest, serial)
    return highest
