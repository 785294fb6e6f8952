from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.audit.chain import LONGEST_LINE, ZERO, parse, seal
from dnp_guard.audit.read.verify import MOST_PROBLEMS, Verification, verify, verify_lines
from dnp_guard.audit.write.sinks import MemorySink
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def problems_of(verification: Verification) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in verification.problems]


def resealed(line: bytes, **changes: object) -> bytes:
    record = {**(parse(line) or {}), **changes}
    seq, prev = record.pop("seq"), record.pop("prev")
    del record["hash"]
    return seal(record, seq, prev)[0] + b"\n"


def test_an_untouched_log_is_right(log: Callable[..., Path], sealed_lines: list[bytes]) -> None:
    assert verify(log()) == Verification(
        ok=True, records=5, problems=(), head_hash=(parse(sealed_lines[-1]) or {})["hash"]
    )


def test_an_empty_log_is_right(log: Callable[..., Path]) -> None:
    assert verify(log([])) == Verification(ok=True, records=0, problems=(), head_hash=ZERO)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="No such file"):
        verify(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        pytest.param(lambda a: [*a[:2], a[2].replace(b"0.91", b"0.11"), *a[3:]], [(3, "hash-mismatch")], id="edit"),
        pytest.param(
            lambda a: [*a[:2], a[2].replace(b'"hash":"', b'"hash":"f', 1), *a[3:]], [(3, "hash-mismatch")], id="hash"
        ),
        pytest.param(
            lambda a: [*a[:2], resealed(a[2], step=9), *a[3:]], [(4, "prev-mismatch")], id="edit with a new hash"
        ),
        pytest.param(lambda a: a[1:], [(1, "seq-gap")], id="first removed"),
        pytest.param(lambda a: [*a[:2], *a[3:]], [(3, "seq-gap")], id="removal"),
        pytest.param(lambda a: [*a[:3], *a[2:]], [(4, "seq-gap")], id="repetition"),
        pytest.param(
            lambda a: [*a[:2], resealed(a[1], seq=2, prev=ZERO), *a[2:]],
            [(3, "prev-mismatch"), (4, "seq-gap")],
            id="insertion",
        ),
        pytest.param(
            lambda a: [*a[:2], a[3], a[2], a[4]], [(3, "seq-gap"), (4, "seq-gap"), (5, "seq-gap")], id="reordering"
        ),
        pytest.param(
            lambda a: [*a[:2], a[2].replace(b":", b": ", 1), *a[3:]], [(3, "not-canonical")], id="white space"
        ),
        pytest.param(lambda a: [line.replace(b"\n", b"\r\n") for line in a[:1]], [(1, "not-canonical")], id="CRLF"),
        pytest.param(lambda a: [a[0].replace(b"{", b'{"v":2,', 1)], [(1, "not-canonical")], id="duplicate key"),
        pytest.param(lambda _: [b'{"step":1e999}\n'], [(1, "not-a-record")], id="not a record"),
        pytest.param(lambda a: [resealed(a[0], v=2)], [(1, "not-a-record")], id="another format"),
        pytest.param(lambda a: [*a[:2], b"garbage\n", *a[3:]], [(3, "not-json")], id="not JSON"),
        pytest.param(lambda a: [*a[:2], b"\n", *a[2:]], [(3, "not-json"), (4, "seq-gap")], id="empty line"),
        pytest.param(lambda a: [*a[:4], a[4][:-1]], [(5, "torn")], id="torn at the newline"),
        pytest.param(lambda a: [*a[:4], a[4][:40]], [(5, "torn")], id="torn"),
    ],
)
def test_a_change_is_named_at_its_line(
    log: Callable[..., Path],
    sealed_lines: list[bytes],
    change: Callable[[list[bytes]], list[bytes]],
    problems: list[tuple[int, str]],
) -> None:
    assert problems_of(verify(log(change(sealed_lines)))) == problems


def test_two_independent_edits_are_both_named(log: Callable[..., Path], sealed_lines: list[bytes]) -> None:
    lines = [line.replace(b"r1", b"r2") if index in {1, 3} else line for index, line in enumerate(sealed_lines)]
    assert problems_of(verify(log(lines))) == [(2, "hash-mismatch"), (4, "hash-mismatch")]


def test_the_head_is_that_of_the_last_line_before_the_first_problem(sealed_lines: list[bytes]) -> None:
    verification = verify_lines([*sealed_lines[:2], *sealed_lines[3:]])
    assert verification.head_hash == (parse(sealed_lines[1]) or {})["hash"]
    assert verification.records == 4


def test_a_cut_tail_is_not_found_without_a_checkpoint(sealed_lines: list[bytes]) -> None:
    whole, cut = verify_lines(sealed_lines), verify_lines(sealed_lines[:3])
    assert cut.ok
    assert cut.head_hash != whole.head_hash


def test_only_so_many_problems_are_named() -> None:
    assert len(verify_lines([b"x\n"] * (MOST_PROBLEMS + 50)).problems) == MOST_PROBLEMS


def test_a_line_without_end_is_named_and_what_follows_is_checked(
    log: Callable[..., Path], sealed_lines: list[bytes]
) -> None:
    path = log([sealed_lines[0], b"x" * (3 * LONGEST_LINE) + b"\n", *sealed_lines[2:]])
    assert problems_of(verify(path)) == [(2, "not-json")]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    sink = MemorySink()
    body = {"v": 1, "time": "t", "event": "query", "reason": "x" * 10_000}
    for _ in range(300):
        sink.write(body)
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in sink.lines))
    tracemalloc.start()
    verification = verify(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert verification.records == 300
    assert peak < path.stat().st_size / 4


class TestAnyOneByteChangeIsFoundAtItsLine:
    @given(data=st.data())
    def test_flipped(self, sealed_lines: list[bytes], data: st.DataObject) -> None:
        log = b"".join(sealed_lines)
        at = data.draw(st.integers(0, len(log) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda value: value != log[at]))
        assert first_bad_line(log[:at] + bytes([byte]) + log[at + 1 :]) == line_of(log, at)

    @given(data=st.data())
    def test_deleted(self, sealed_lines: list[bytes], data: st.DataObject) -> None:
        log = b"".join(sealed_lines)
        at = data.draw(st.integers(0, len(log) - 1))
        assert first_bad_line(log[:at] + log[at + 1 :]) == line_of(log, at)

    @given(data=st.data())
    def test_inserted(self, sealed_lines: list[bytes], data: st.DataObject) -> None:
        log = b"".join(sealed_lines)
        at = data.draw(st.integers(0, len(log)))
        byte = data.draw(st.integers(0, 255))
        # A newline before a newline makes an empty line, which is the next line.
        ends_a_line = byte == ord("\n") and log[at : at + 1] == b"\n"
        assert first_bad_line(log[:at] + bytes([byte]) + log[at:]) == line_of(log, at) + ends_a_line

    def test_every_newline(self, sealed_lines: list[bytes]) -> None:
        log = b"".join(sealed_lines)
        ends = [at for at, byte in enumerate(log) if byte == ord("\n")]
        assert [first_bad_line(log[:at] + log[at + 1 :]) for at in ends] == [1, 2, 3, 4, 5]

    def test_every_place(self, sealed_lines: list[bytes]) -> None:
        log = b"".join(sealed_lines)
        missed = [at for at in range(len(log)) if first_bad_line(log[:at] + log[at + 1 :]) != line_of(log, at)]
        assert missed == []


def line_of(log: bytes, at: int) -> int:
    return log.count(b"\n", 0, at) + 1


def first_bad_line(log: bytes) -> int:
    problems = verify_lines(log_lines(log)).problems
    return problems[0].line if problems else 0


def log_lines(log: bytes) -> list[bytes]:
    *whole, last = log.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])
