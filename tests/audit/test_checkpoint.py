from __future__ import annotations

import base64
import hashlib
import stat
from typing import TYPE_CHECKING

import pytest
from nacl.signing import SigningKey, VerifyKey

from dnp_guard.audit.chain import ZERO, parse, seal
from dnp_guard.audit.checkpoint import Checkpoint, Signer, make_key, note, parse_note, read_notes, read_signer
from dnp_guard.audit.read.verify import verify_lines
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

SEED = bytes(range(32))
CHECKPOINT = Checkpoint("example.org/log", 3, "ab" * 32, "2026-01-01T00:00:00.000Z")


def head(lines: list[bytes], count: int) -> str:
    return str((parse(lines[count - 1]) or {})["hash"])


def codes(lines: list[bytes], *checkpoints: Checkpoint) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in verify_lines(lines, checkpoints=checkpoints).problems]


def test_the_text_is_that_of_a_c2sp_checkpoint() -> None:
    root = base64.b64encode(bytes.fromhex("ab" * 32)).decode()
    assert note(CHECKPOINT) == f"example.org/log\n3\n{root}\ntime 2026-01-01T00:00:00.000Z\n\n"


def test_the_signature_is_that_of_a_signed_note() -> None:
    text = note(CHECKPOINT, Signer("example.org", SEED))
    body, _, line = text.partition("\n\n")
    dash, name, encoded = line.removesuffix("\n").split(" ")
    raw, key = base64.b64decode(encoded), bytes(SigningKey(SEED).verify_key)
    identity = hashlib.sha256(b"example.org\n\x01" + key).digest()[:4]
    VerifyKey(key).verify(f"{body}\n".encode(), raw[4:])
    assert dash == "—"
    assert name == "example.org"
    assert raw[:4] == identity
    assert len(raw) == 68


@pytest.mark.parametrize("signer", [None, Signer("k", SEED)])
def test_a_note_is_read_back(signer: Signer | None) -> None:
    assert parse_note(note(CHECKPOINT, signer), signer.public if signer else None) == CHECKPOINT


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n3\n", "\n4\n"),
        lambda text: text.replace("2026", "2025"),
        lambda text: text.partition("—")[0],
        lambda text: text.replace("— k ", "— other "),
        lambda text: text[:-9] + "AAAAAAA=\n",
    ],
)
def test_a_checkpoint_that_was_changed_or_not_signed_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    signer = Signer("k", SEED)
    with pytest.raises(AuditError, match="no valid signature of k"):
        parse_note(change(note(CHECKPOINT, signer)), signer.public)


def test_a_checkpoint_signed_with_another_key_of_the_same_name_is_refused() -> None:
    with pytest.raises(AuditError, match="no valid signature"):
        parse_note(note(CHECKPOINT, Signer("k", bytes(32))), Signer("k", SEED).public)


@pytest.mark.parametrize("text", ["", "hello\n", "a\n03\n" + "A" * 43 + "=\n\n", "a\n3\nxyz\n\n", "a\n3\n\n"])
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(AuditError, match="not a checkpoint"):
        parse_note(text)


@pytest.mark.parametrize("public", ["k", "k+00000000+AAAA", "k+zz+" + "A" * 44])
def test_what_is_no_verifier_key_is_refused(public: str) -> None:
    with pytest.raises(AuditError, match="not a verifier key"):
        parse_note(note(CHECKPOINT, Signer("k", SEED)), public)


def test_a_key_is_made_for_its_owner_only_and_read_back(tmp_path: Path) -> None:
    made = make_key(tmp_path / "key", "k")
    mode = stat.S_IMODE((tmp_path / "key").stat().st_mode)
    assert mode == 0o600
    assert read_signer(tmp_path / "key").public == made.public


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "key", "k")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(AuditError, match="users other than its owner"):
        read_signer(tmp_path / "key")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    make_key(tmp_path / "key", "k")
    with pytest.raises(AuditError, match="File exists"):
        make_key(tmp_path / "key", "k")


def test_a_file_of_checkpoints_is_read_in_order(tmp_path: Path) -> None:
    signer, later = Signer("k", SEED), Checkpoint("example.org/log", 7, "cd" * 32)
    (tmp_path / "c").write_text(note(CHECKPOINT, signer) + note(later, signer), encoding="utf-8")
    assert read_notes(tmp_path / "c", signer.public) == [CHECKPOINT, later]


@pytest.mark.parametrize("text", ["", "garbage", note(CHECKPOINT) + "garbage"])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text, encoding="utf-8")
    with pytest.raises(AuditError, match="has no checkpoints"):
        read_notes(tmp_path / "c")


def test_a_log_agrees_with_its_checkpoints(sealed_lines: list[bytes]) -> None:
    checkpoints = [Checkpoint("o", count, head(sealed_lines, count)) for count in (1, 3, 5)]
    assert codes(sealed_lines, *checkpoints, Checkpoint("o", 0, ZERO)) == []


def test_a_cut_tail_is_found(sealed_lines: list[bytes]) -> None:
    assert codes(sealed_lines[:3], Checkpoint("o", 5, head(sealed_lines, 5))) == [(3, "truncated")]


def test_a_cut_tail_within_a_line_is_found(sealed_lines: list[bytes]) -> None:
    lines = [*sealed_lines[:3], sealed_lines[3][:20]]
    assert codes(lines, Checkpoint("o", 4, head(sealed_lines, 4))) == [(4, "torn"), (4, "truncated")]


def test_an_emptied_log_is_found(sealed_lines: list[bytes]) -> None:
    assert codes([], Checkpoint("o", 5, head(sealed_lines, 5))) == [(0, "truncated")]


def test_a_log_rewritten_to_its_end_is_found(sealed_lines: list[bytes]) -> None:
    lines, prev = list[bytes](), ZERO
    for seq, line in enumerate(sealed_lines):
        record = {**(parse(line) or {}), "request": "r9"}
        body = {key: value for key, value in record.items() if key not in {"seq", "prev", "hash"}}
        rewritten, prev = seal(body, seq, prev)
        lines.append(rewritten + b"\n")
    assert codes(lines) == []
    assert codes(lines, Checkpoint("o", 4, head(sealed_lines, 4))) == [(4, "checkpoint-mismatch")]
