"""Provide fixtures for tests of attacks and failures: a service in this process, and a table of its reactions."""

from pathlib import Path

import pytest

from tests.server.conftest import serve

__all__ = ["serve"]

TABLE = Path(__file__).parents[2] / "build" / "service-fault-table.md"
HEAD = ("attack", "bound", "what happened", "seconds", "megabytes")


@pytest.fixture(scope="session")
def service_table():
    """Yield a list for rows with the columns :data:`HEAD`, and write it to ``build/service-fault-table.md`` at the end.

    The column ``megabytes`` is the growth of the service's memory.
    """
    rows = []
    yield rows
    if rows:
        TABLE.parent.mkdir(exist_ok=True)
        lines = [HEAD, ["---"] * len(HEAD), *rows]
        text = "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
        TABLE.write_text(text, encoding="utf-8")
