from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dnp_guard import files
from dnp_guard.errors import DnpGuardError
from dnp_guard.policy.force import serials


@pytest.fixture
def homeless(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "DNP_GUARD_SERIALS", "NAMED"):
        monkeypatch.delenv(variable, raising=False)


def test_a_path_that_is_named_comes_first(monkeypatch):
    monkeypatch.setenv("NAMED", "/there/file.json")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert files.state_path("file.json", "NAMED") == Path("/there/file.json")


def test_the_folder_of_the_environment_comes_before_the_home(monkeypatch):
    monkeypatch.delenv("NAMED", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert files.state_path("file.json", "NAMED") == Path("/state/dnp-guard/file.json")


@pytest.mark.parametrize(("of", "folder"), [(files.state_path, ".local/state"), (files.cache_path, ".cache")])
def test_state_and_cache_lie_where_they_belong_in_a_home(of, folder, monkeypatch, tmp_path):
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "NAMED"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert of("x", "NAMED") == tmp_path / folder / "dnp-guard" / "x"


def test_a_user_without_a_home_has_no_state(homeless):
    assert files.state_path("x", "NAMED") is None


def test_the_serials_of_a_user_without_a_home_are_an_error_with_a_remedy(homeless):
    with pytest.raises(DnpGuardError, match="DNP_GUARD_SERIALS"):
        serials.path()


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o640)
    files.write_whole(file, "after", private=True)
    assert file.read_text() == "after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_new_private_file_is_its_owners(tmp_path):
    files.write_whole(tmp_path / "file", "secret", private=True)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_new_shared_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    files.write_whole(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        files.write_whole(file, "half \ud800")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_file_is_only_made_anew(tmp_path):
    with files.create_private(tmp_path / "key") as file:
        file.write(b"first")
    with pytest.raises(FileExistsError):
        files.create_private(tmp_path / "key")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), (" 1d ", 86_400), ("2w", 1_209_600)]
)
def test_a_duration_is_a_number_and_a_unit(text, seconds):
    assert files.duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-1m", "1.5h", "1y", "9999999d", "\N{ARABIC-INDIC DIGIT ONE}d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(DnpGuardError, match="not a duration"):
        files.duration(text)
