from __future__ import annotations

import threading

import pytest

from dnp_guard.policy.force.watch import Watch, contents


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("a")
    return path


@pytest.fixture
def calls():
    return []


@pytest.fixture
def watch(path, calls):
    return Watch(path, lambda: calls.append(path.read_text()), 0.01)


def test_nothing_is_done_while_nothing_changes(watch, calls):
    assert not watch.check()
    assert calls == []


def test_a_change_counts_once_it_has_come_to_rest(watch, path, calls):
    path.write_text("changed")
    assert not watch.check()
    assert watch.check()
    assert not watch.check()
    assert calls == ["changed"]


def test_a_file_that_is_still_being_written_is_left_alone(watch, path, calls):
    for text in ("half", "half, and more"):
        path.write_text(text)
        assert not watch.check()
    assert watch.check()
    assert calls == ["half, and more"]


def test_tests_and_bases_beside_the_policy_are_watched_too(path):
    (path.parent / "tests").mkdir()
    (path.parent / "tests" / "p.test.yaml").write_text("")
    (path.parent / "image.png").write_text("")
    assert {file.name for file in contents(path)} == {"p.yaml", "p.test.yaml"}


def test_folders_below_are_left_alone_but_for_what_the_policy_was_made_from(path):
    below = path.parent / "below"
    below.mkdir()
    for name in ("base.yaml", "other.yaml"):
        (below / name).write_text("")
    assert set(contents(path, [below / "base.yaml"])) == {path, below / "base.yaml"}


@pytest.mark.parametrize("poll", [True, False])
def test_a_started_watch_sees_a_change_and_ends_when_closed(path, poll, monkeypatch):
    if poll:
        monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    seen = threading.Event()
    watch = Watch(path, seen.set, 0.01)
    watch.start()
    path.write_text("changed")
    assert seen.wait(30)
    watch.close()
    assert not any(thread.name == "dnp-guard-watch" for thread in threading.enumerate())
