"""A generation fails closed if an audit record that the policy requires cannot be written."""

from __future__ import annotations

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink, Verification, verify
from dnp_guard.types import Outcome
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import policy
from tests.sampler import finish, run, start


class Failing(MemorySink):
    """A sink that writes ``room`` events, and fails at all later ones."""

    name = "failing"

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write(self, event):
        if len(self.lines) >= self.room:
            raise OSError("no space left on device")
        super().write(event)


@pytest.fixture(autouse=True)
def spool(tmp_path, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


def outcome(sinks, **audit):
    with Guard(policy(audit=audit), vlm=ScriptedBackend([{}]), audit=sinks) as guard:
        (decided,) = run(guard)
        return decided


@pytest.mark.parametrize("room", [0, 1, 2, 5])
def test_a_generation_fails_closed_when_a_required_record_cannot_be_written(room):
    assert outcome(Failing(room), required=True) is Outcome.FAILED_CLOSED


def test_a_generation_fails_closed_when_one_of_several_sinks_cannot_be_written():
    sound = MemorySink()
    assert outcome([sound, Failing(1)], required=True) == Outcome.FAILED_CLOSED
    assert len(sound.lines) > 5


def test_a_generation_whose_required_records_are_written_passes():
    assert outcome(MemorySink(), required=True) is Outcome.CLEAN


def test_a_generation_passes_without_its_record_where_none_is_required(spool):
    assert outcome(Failing(1)) == Outcome.CLEAN
    assert len(list(spool.iterdir())) == 1


def test_the_next_run_writes_what_the_last_could_not(tmp_path, spool):
    folder = tmp_path / "logs"
    folder.mkdir()
    specs = [f"jsonl:{folder / 'a.jsonl'}", f"sqlite:{folder / 'a.db'}"]
    guard = Guard(policy(), vlm=ScriptedBackend([{}]), audit=specs)
    folder.rename(tmp_path / "away")
    finish(start(guard))
    guard.close()
    folder.mkdir()
    outcome(specs)
    logs = [verify(folder / name) for name in ("a.jsonl", "a.db")]
    for log in logs:
        assert isinstance(log, Verification)
        assert log.ok
        assert log.records > 10
