from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.redact import KEY_VARIABLE, key_file, prompt_field, prompt_key
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_the_hash_is_hmac_sha_256_of_the_prompt() -> None:
    # RFC 4231, test case 2
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert prompt_field("what do ya want for nothing?", "hmac", b"Jefe") == {"hmac": digest}


def test_another_key_gives_another_hash() -> None:
    assert prompt_field("a", "hmac", KEY) != prompt_field("a", "hmac", KEY[::-1])


def test_hashing_without_a_key_is_refused() -> None:
    with pytest.raises(AuditError, match=KEY_VARIABLE):
        prompt_field("a", "hmac")


def test_a_prompt_with_a_lone_surrogate_is_hashed() -> None:
    assert len(prompt_field("\ud800", "hmac", KEY)["hmac"]) == 64


def test_redacting_leaves_the_lengths_of_words() -> None:
    assert prompt_field("(nude:1.2), देवी 🍑", "redacted") == {"redacted": "[11] [4] [1]"}


def test_plain_keeps_the_prompt_and_none_keeps_nothing() -> None:
    assert prompt_field("a b", "plain") == {"plain": "a b"}
    assert prompt_field("a b", "none") == {}


def test_the_environment_has_the_first_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "correct horse battery")
    assert prompt_key(tmp_path / "audit.jsonl") == b"correct horse battery"
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_made_once_beside_the_log_for_its_owner_only(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    made = prompt_key(log)
    mode = stat.S_IMODE((tmp_path / "audit.jsonl.key").stat().st_mode)
    assert len(made) == 64
    assert mode == 0o600
    assert prompt_key(log) == made
    assert len(list(tmp_path.iterdir())) == 1


def test_threads_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(prompt_key, [tmp_path / "audit.jsonl"] * 32))
    assert len(keys) == 1


def test_without_a_log_the_key_is_new() -> None:
    assert prompt_key() != prompt_key()


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path / "audit.jsonl")
    path.write_bytes(KEY)
    path.chmod(0o640)
    with pytest.raises(AuditError, match="chmod 600"):
        prompt_key(tmp_path / "audit.jsonl")


def test_a_short_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    with pytest.raises(AuditError, match="fewer than 16 bytes"):
        prompt_key(tmp_path / "audit.jsonl")


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot read or make the audit key"):
        prompt_key(tmp_path / "missing" / "audit.jsonl")
