from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.read.follow import follow
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sqlite import SqliteSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def turns(*actions: Callable[[], None]) -> Callable[[], bool]:
    """Return a ``wait`` function for ``follow``: every call runs the next action, and returns False after the last."""
    left = list(actions)

    def wait() -> bool:
        if left:
            left.pop(0)()
            return True
        return False

    return wait


@pytest.mark.parametrize("kind", [JsonlSink, SqliteSink])
def test_records_after_the_start_are_read(tmp_path: Path, kind: type[JsonlSink | SqliteSink]) -> None:
    sink = kind(tmp_path / "log")
    sink.write(build("query", step=0))
    wait = turns(*(lambda step=step: sink.write(build("query", step=step)) for step in (1, 2)))
    assert [record["step"] for record in follow(tmp_path / "log", wait)] == [1, 2]


def test_it_goes_on_after_a_rotation(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "log", rotate_bytes=1)
    sink.write(build("query", step=0))
    wait = turns(*(lambda step=step: sink.write(build("query", step=step)) for step in (1, 2, 3)))
    assert [record["step"] for record in follow(tmp_path / "log", wait)] == [1, 2, 3]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "log")
    sink.write(build("query", step=0))
    line = (tmp_path / "log").read_bytes()

    def append(data: bytes) -> None:
        with (tmp_path / "log").open("ab") as file:
            file.write(data)

    wait = turns(lambda: append(line[:20]), lambda: append(line[20:]))  # writes the same record; any other would do
    assert [record["step"] for record in follow(tmp_path / "log", wait)] == [0]
