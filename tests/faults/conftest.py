"""Fixtures of the tests of faults: a service in this process, and the table of its faults."""

from pathlib import Path

import pytest

from tests.server.conftest import serve

__all__ = ["serve"]

TABLE = Path(__file__).parents[2] / "build" / "service-fault-table.md"
HEAD = ("attack", "bound", "what happened", "seconds", "megabytes")


@pytest.fixture(scope="session")
def service_table():
    """Yield the rows of ``build/service-fault-table.md``, see :data:`HEAD`; megabytes are the service's growth."""
    rows = []
    yield rows
    if rows:
        TABLE.parent.mkdir(exist_ok=True)
        lines = [HEAD, ["---"] * len(HEAD), *rows]
        text = "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
        TABLE.write_text(text, encoding="utf-8")
