from __future__ import annotations

import hashlib
import json

import pytest

from dnp_guard.audit.chain import LONGEST_LINE, ZERO, Head, head_after, parse, seal
from dnp_guard.audit.record import build
from dnp_guard.canonical import canonical
from dnp_guard.errors import AuditError


def test_a_sealed_line_is_the_canonical_bytes_of_the_record_with_its_place_and_hash() -> None:
    body = {"v": 1, "event": "query", "time": "t"}
    line, sealed = seal(body, 4, "ab")
    assert line == canonical({**body, "seq": 4, "prev": "ab", "hash": sealed})


def test_the_hash_is_sha_256_over_the_bytes_without_the_hash() -> None:
    line, sealed = seal({"v": 1}, 0, ZERO)
    record = json.loads(line)
    del record["hash"]
    assert sealed == hashlib.sha256(canonical(record)).hexdigest()


def test_a_record_says_what_the_next_one_carries() -> None:
    line, sealed = seal(build("query"), 4, ZERO)
    assert head_after(parse(line) or {}) == Head(5, sealed)


def test_a_line_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(AuditError, match=f"A line has at most {LONGEST_LINE} bytes"):
        seal({"reason": "x" * LONGEST_LINE}, 0, ZERO)


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, '{"é":1}'.encode("utf-16")])
def test_a_line_that_is_no_json_object_is_no_record(line: bytes) -> None:
    assert parse(line) is None


def test_large_floats_keep_their_bytes_when_read_back() -> None:
    line = canonical({"sigma": 1e20})
    assert canonical(parse(line)) == line
