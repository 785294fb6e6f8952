"""A folder of policies may have files that only look like policies, and files that change but keep time and size."""

from __future__ import annotations

import os

import pytest

from dnp_guard.cli import run
from dnp_guard.errors import PolicyError
from dnp_guard.policy.force.store import load_store
from dnp_guard.policy.force.watch import Watch

POLICY = "format: 1\nname: {}\ncategories: [{{id: star, title: Star, definition: A star., negative: [star]}}]\n"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "ours.yaml").write_text(POLICY.format("ours"))
    (tmp_path / "tests").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["floor.yml", "theirs.yml", "theirs.YAML", "tests/ours.test.yml"])
def test_a_file_that_would_never_be_read_is_refused_by_its_name(store, name):
    (store / name).write_text(POLICY.format("theirs"))
    with pytest.raises(PolicyError, match="is never read") as raised:
        load_store(store)
    assert "Rename it to" in raised.value.problems[0].hint


@pytest.mark.parametrize("command", ["check", "test"])
def test_the_commands_tell_of_it(store, command, capsys):
    (store / "tests" / "ours.test.yml").write_text("")
    assert run(["policy", command, str(store)]) > 0
    assert "is never read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["._ours.yaml", ".#ours.yaml", ".ours.yaml.swp", "._ours.yml", "tests/._ours.test.yaml"]
)
def test_files_of_editors_and_file_systems_stop_no_start(store, name):
    (store / name).write_bytes(b"\x00\x05\x16\x07\x00\x02")
    assert [policy.name for policy in load_store(store).policies] == ["ours"]
    assert run(["policy", "check", str(store)]) == 0


def test_a_dangling_lock_of_an_editor_stops_no_start(store):
    (store / ".#ours.yaml").symlink_to("somebody@there.1234:1")
    assert [policy.name for policy in load_store(store).policies] == ["ours"]


def test_a_change_of_the_same_time_and_size_is_seen(store):
    calls = []
    watch = Watch(store, lambda: calls.append("changed"), 0.01)
    file = store / "ours.yaml"
    before = file.stat()
    file.write_text(file.read_text().replace("ours", "mine"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert not watch.check()
    assert watch.check()
    assert calls == ["changed"]


def test_a_new_time_alone_is_no_change(store):
    watch = Watch(store, lambda: None, 0.01)
    os.utime(store / "ours.yaml", ns=(1, 1))
    assert not watch.check()
    assert not watch.check()


def test_a_file_with_the_wrong_ending_is_a_change_that_is_told_of(store):
    watch = Watch(store, lambda: None, 0.01)
    (store / "floor.yml").write_text(POLICY.format("floor"))
    assert not watch.check()
    assert watch.check()
