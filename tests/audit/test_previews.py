from __future__ import annotations

import hashlib
import io
import os
import resource
import stat
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dnp_guard.audit.previews import folder, forget, keep, make_key, read_key, shown
from dnp_guard.audit.read.retention import hold, purge
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError

R1, R2, R3 = ("1" * 32, "2" * 32, "3" * 32)
START = datetime(2026, 1, 1, tzinfo=UTC)
CUT = "2026-01-03T00:00:00.000Z"


def stripes(width=200, height=100):
    """Draw a picture with sharp edges, and with a comment in its metadata that must not be stored."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for x in range(0, width, 8):
        draw.rectangle((x, 0, x + 3, height), fill="white")
    picture.info["comment"] = picture.info["icc_profile"] = b"a secret"
    return picture


def sharpest(picture):
    """Return the largest difference between two neighbouring pixels."""
    levels = picture.convert("L").crop((0, 0, picture.width, 1)).tobytes()
    return max(abs(a - b) for a, b in pairwise(levels))


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_a_kept_preview_is_small_and_blurred_and_carries_nothing_else(tmp_path):
    preview = keep(tmp_path / "p", R1, 0, 4, stripes())
    path = tmp_path / "p" / preview["file"]
    with Image.open(path) as picture:
        assert picture.size == (64, 32)
        assert sharpest(picture) < 40
    assert b"secret" not in path.read_bytes()


def test_a_small_picture_is_blurred_too(tmp_path):
    preview = keep(tmp_path / "p", R1, 0, 4, stripes(32, 32))
    with Image.open(tmp_path / "p" / preview["file"]) as picture:
        assert picture.size == (32, 32)
        assert sharpest(stripes(32, 32)) == 255
        assert sharpest(picture) < 40


def test_it_is_named_by_request_image_and_step_and_told_by_its_hash(tmp_path):
    place = tmp_path / "p"
    first, last = keep(place, R1, 1, 4, stripes()), keep(place, R1, 0, None, stripes())
    assert names(place) == [f"{R1}-0-final.png", f"{R1}-1-4.png"] == [last["file"], first["file"]]
    assert first["sha256"] == hashlib.sha256((place / first["file"]).read_bytes()).hexdigest()


def test_only_its_owner_may_read_it(tmp_path):
    preview = keep(tmp_path / "p", R1, 0, 4, stripes())
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "p", tmp_path / "p" / preview["file"])]
    assert modes == [0o700, 0o600]


def test_a_preview_that_cannot_be_written_is_an_error_of_the_record(tmp_path):
    (tmp_path / "p").write_text("a file")
    with pytest.raises(AuditError, match="cannot store a preview"):
        keep(tmp_path / "p", R1, 0, 4, stripes())


@contextmanager
def full_disk():
    """Limit files to 16 bytes, inside a ``with`` block only, because the limit applies to the whole process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_torn_preview_is_not_left(tmp_path):
    with full_disk(), pytest.raises(AuditError, match="File too large"):
        keep(tmp_path / "p", R1, 0, 4, stripes())
    assert names(tmp_path / "p") == []


def test_the_previews_of_one_image_are_forgotten(tmp_path):
    for image in (0, 1, 10):
        keep(tmp_path, R1, image, 4, stripes())
    forget(tmp_path, R1, 1)
    assert names(tmp_path) == [f"{R1}-0-4.png", f"{R1}-10-4.png"]


@pytest.fixture(params=[JsonlSink, SqliteSink])
def log(request, tmp_path):
    """Write an audit log of three requests with one preview per request, of which the first two are old."""
    path = tmp_path / "log"
    sink = request.param(path)
    for day, name in enumerate((R1, R2, R3)):
        at = START + timedelta(days=day, hours=1 + 24 * (name == R3))
        preview = keep(folder(path), name, 0, 4, stripes())
        sink.write(build("query", at=at, request=name, image=0, step=4, preview=preview))
        os.utime(folder(path) / preview["file"], (at.timestamp(),) * 2)
    sink.close()
    return path


def test_previews_go_with_their_records(log):
    done = purge(log, CUT)
    assert done.records == 2
    assert names(folder(log)) == [f"{R3}-0-4.png"]


def test_a_preview_goes_with_its_record_however_new_its_file_is(log):
    os.utime(folder(log) / f"{R1}-0-4.png")
    purge(log, CUT)
    assert names(folder(log)) == [f"{R3}-0-4.png"]


def test_a_preview_stays_with_its_record_however_old_its_file_is(log):
    os.utime(folder(log) / f"{R3}-0-4.png", (0, 0))
    purge(log, CUT)
    assert names(folder(log)) == [f"{R3}-0-4.png"]


def test_a_hold_keeps_the_previews_of_its_request(log):
    hold(log, R2)
    purge(log, CUT)
    assert names(folder(log)) == [f"{R2}-0-4.png", f"{R3}-0-4.png"]


def test_an_old_preview_that_no_record_names_goes_even_when_no_record_does(log):
    purge(log, CUT)
    lost = folder(log) / keep(folder(log), R1, 7, None, stripes())["file"]
    os.utime(lost, (0, 0))
    done = purge(log, CUT)
    assert done.records == 0
    assert names(folder(log)) == [f"{R3}-0-4.png"]


def test_nothing_but_previews_is_removed_whatever_a_record_names(tmp_path):
    path = tmp_path / "log"
    precious = [tmp_path / "precious.png", folder(path) / "notes.txt"]
    folder(path).mkdir()
    sink = JsonlSink(path)
    for file in precious:
        file.write_text("mine")
        os.utime(file, (0, 0))
    for name in ("../precious.png", str(precious[0]), "notes.txt", "", 7):
        sink.write(build("query", at=START, request=R1, preview={"file": name, "sha256": "0" * 64}))
    sink.close()
    done = purge(path, CUT)
    assert done.records == 5
    assert [file.read_text() for file in precious] == ["mine", "mine"]


def test_a_preview_that_cannot_be_removed_is_told(log, monkeypatch):
    def refused(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    remove = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda self, **how: refused(self) if self.suffix == ".png" else remove(self, **how)
    )
    with pytest.raises(AuditError, match="cannot be removed: Permission denied"):
        purge(log, CUT)
    monkeypatch.undo()
    purge(log, CUT)
    assert names(folder(log)) == [f"{R3}-0-4.png"]


KEY = b"k" * 32


def test_with_a_key_a_picture_is_whole_and_encrypted(tmp_path):
    preview = keep(tmp_path / "p", R1, 0, 4, stripes(), KEY)
    path = tmp_path / "p" / preview["file"]
    with Image.open(io.BytesIO(shown(path, KEY))) as picture:
        assert picture.size == (200, 100)
        assert sharpest(picture) == 255
        assert picture.info == {}
    assert path.suffix == ".sealed"
    assert b"PNG" not in path.read_bytes()


@pytest.mark.parametrize("key", [None, b"x" * 32])
def test_without_its_key_an_encrypted_picture_is_not_shown(key, tmp_path):
    preview = keep(tmp_path / "p", R1, 0, 4, stripes(), KEY)
    with pytest.raises(AuditError):
        shown(tmp_path / "p" / preview["file"], key)


def test_an_encrypted_picture_that_was_altered_is_not_shown(tmp_path):
    path = tmp_path / "p" / keep(tmp_path / "p", R1, 0, 4, stripes(), KEY)["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(AuditError, match="altered"):
        shown(path, KEY)


def test_an_encrypted_picture_goes_with_its_image(tmp_path):
    keep(tmp_path / "p", R1, 0, 4, stripes(), KEY)
    forget(tmp_path / "p", R1, 0)
    assert names(tmp_path / "p") == []


def test_a_key_is_read_from_the_file_that_the_environment_names(tmp_path, monkeypatch):
    make_key(tmp_path / "key")
    monkeypatch.setenv("DNP_GUARD_PICTURE_KEY", str(tmp_path / "key"))
    assert len(read_key() or b"") == 32


@pytest.mark.parametrize(("content", "mode"), [("x", 0o600), ("a2V5", 0o600), (None, 0o644)])
def test_a_key_that_is_none_or_open_to_others_is_refused(content, mode, tmp_path, monkeypatch):
    make_key(tmp_path / "key")
    if content is not None:
        (tmp_path / "key").write_text(content)
    (tmp_path / "key").chmod(mode)
    monkeypatch.setenv("DNP_GUARD_PICTURE_KEY", str(tmp_path / "key"))
    with pytest.raises(AuditError):
        read_key()
