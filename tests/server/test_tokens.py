"""The file of bearer tokens has one writer at a time, and loses no token."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.server import tokens

WRITERS = 4
EACH = 40
_ADDS = "import sys; from pathlib import Path; from dnp_guard.server import tokens; "
_ADDS += "[tokens.add(Path(sys.argv[1])) for _ in range(int(sys.argv[2]))]"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.json"


def test_four_writers_at_once_lose_no_token(file):
    tokens.add(file)
    writers = [subprocess.Popen([sys.executable, "-c", _ADDS, file, str(EACH)]) for _ in range(WRITERS)]
    assert [writer.wait() for writer in writers] == [0] * WRITERS
    assert len(tokens.Tokens(file).all) == 1 + WRITERS * EACH


def test_a_token_that_is_added_leaves_mode_and_link(tmp_path, file):
    tokens.add(tmp_path / "real.json")
    (tmp_path / "real.json").chmod(0o640)
    file.symlink_to("real.json")
    tokens.add(file)
    assert file.is_symlink()
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640
    assert len(tokens.Tokens(file).all) == 2


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
def test_a_token_that_is_added_leaves_the_group(file):
    tokens.add(file)
    os.chown(file, -1, 12345)
    tokens.add(file)
    assert file.stat().st_gid == 12345


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_file_that_others_may_write_is_refused(file, mode):
    tokens.add(file)
    file.chmod(mode)
    with pytest.raises(DnpGuardError, match="other than its owner may write it"):
        tokens.Tokens(file)


def test_a_file_that_others_may_write_meanwhile_lets_nobody_in(file):
    token = tokens.add(file)
    held = tokens.Tokens(file)
    file.chmod(0o666)
    assert held.grant(f"Bearer {token}") is None


def test_a_token_revoked_in_place_is_refused_though_size_and_time_are_the_same(file):
    token = tokens.add(file)
    held = tokens.Tokens(file)
    before = file.stat()
    document = json.loads(file.read_text())
    document["tokens"][0]["sha256"] = "0" * 64
    with file.open("r+") as opened:
        opened.write(json.dumps(document, indent=2) + "\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert after.st_size == before.st_size
    assert after.st_mtime_ns == before.st_mtime_ns
    assert after.st_ino == before.st_ino
    assert held.grant(f"Bearer {token}") is None


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DnpGuardError, match="there is no such folder") as raised:
        tokens.add(tmp_path / "missing" / "tokens.json")
    assert raised.value.hint == f"mkdir -p {tmp_path / 'missing'}"
