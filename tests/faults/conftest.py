"""What the tests of faults share: a service in this process, and the table of what was done to one."""

from pathlib import Path

import pytest

from tests.server.conftest import serve

__all__ = ["serve"]

TABLE = Path(__file__).parents[2] / "build" / "service-fault-table.md"
HEAD = ("attack", "bound", "what happened", "seconds", "megabytes")


@pytest.fixture(scope="session")
def service_table():
    """Rows of ``build/service-fault-table.md``: see :data:`HEAD`; megabytes are those that the service grew by."""
    rows = []
    yield rows
    if rows:
        TABLE.parent.mkdir(exist_ok=True)
        lines = [HEAD, ["---"] * len(HEAD), *rows]
        text = "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
        TABLE.write_text(text, encoding="utf-8")
