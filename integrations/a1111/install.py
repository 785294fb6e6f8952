"""Check the extension's settings file when the host starts, and print an error; the extension needs no packages."""

from __future__ import annotations

from pathlib import Path

from dnp_guard_extension.settings import BadSettings, from_file

try:
    from_file(Path(__file__).resolve().parent)
except BadSettings as error:
    print(f"DNP Guard: nothing will be generated. {error}")  # noqa: T201 (the host shows what is printed here)
