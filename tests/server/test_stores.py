"""Every kind of session store fulfils the same contract."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import fakeredis
import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.server.redis import RedisStore
from dnp_guard.server.sessions import Stored
from dnp_guard.server.sqlite import SqliteStore
from dnp_guard.server.stores import open_store

NOW = 4_000_000_000.0
SESSION = Stored(id="a" * 32, token="t", tenant="", request="{}", policy="{}", digest="d", expires=NOW + 60, state="{}")


def named(name, **changes):
    return replace(SESSION, id=name, **changes)


@pytest.fixture(params=["memory", "file", "redis"])
def stores(request, tmp_path):
    """Open a session store twice, as two workers do."""
    if request.param == "memory":
        store = SqliteStore(":memory:")
        made = (store, store)
    elif request.param == "file":
        made = tuple(SqliteStore(str(tmp_path / "sessions")) for _ in range(2))
    else:
        server = fakeredis.FakeServer()
        made = tuple(RedisStore(fakeredis.FakeRedis(server=server, decode_responses=True)) for _ in range(2))
    yield made
    for store in set(made):
        store.close()


def test_a_worker_loads_the_session_that_another_stored(stores):
    one, other = stores
    assert one.add(SESSION, 1)
    assert other.load(SESSION.id) == SESSION
    assert other.load("b" * 32) is None


def test_the_first_of_two_changes_to_one_version_wins(stores):
    one, other = stores
    one.add(SESSION, 1)
    assert one.save(replace(SESSION, step=2))
    assert not other.save(replace(SESSION, step=4))
    assert other.load(SESSION.id) == replace(SESSION, step=2, version=1)


def test_a_session_that_is_gone_is_not_saved(stores):
    assert not stores[0].save(SESSION)


def test_only_open_sessions_of_a_token_count(stores):
    one, other = stores
    assert one.add(SESSION, 1)
    assert not other.add(named("b"), 1)
    assert other.add(named("c", token="u"), 1)
    one.save(replace(SESSION, status="finished"))
    assert other.add(named("d"), 1)


def test_one_worker_receives_an_expired_session(stores):
    one, other = stores
    one.add(SESSION, 9)
    one.add(named("b", expires=NOW + 120), 9)
    assert one.expired(NOW) == []
    assert list(other.expired(NOW + 60)) == [SESSION]
    assert list(one.expired(NOW + 60)) == []
    assert one.load(SESSION.id) is None
    assert one.load("b") is not None


def test_a_change_puts_the_end_off(stores):
    one, other = stores
    one.add(SESSION, 1)
    one.save(replace(SESSION, expires=NOW + 120))
    assert list(other.expired(NOW + 60)) == []


def test_an_expired_session_counts_no_more(stores):
    one, _ = stores
    one.add(SESSION, 1)
    one.expired(NOW + 60)
    assert one.add(named("b"), 1)


def test_one_worker_receives_the_sessions_that_are_open_at_the_end(stores):
    one, other = stores
    one.add(SESSION, 9)
    one.add(named("b", status="finished"), 9)
    assert [session.id for session in one.take_open()] == [SESSION.id]
    assert list(other.take_open()) == []


def test_requests_are_counted_by_token_and_window(stores):
    one, other = stores
    assert one.count("t", 1) == 1
    assert other.count("t", 1) == 2
    assert one.count("u", 1) == 1
    assert one.count("t", 2) == 1


def test_one_of_many_simultaneous_changes_wins(stores):
    one, other = stores
    one.add(SESSION, 1)
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda n: (one, other)[n % 2].save(replace(SESSION, step=n)), range(16)))
    assert saved.count(True) == 1


def test_a_store_in_a_file_is_its_owners_alone(tmp_path):
    file = tmp_path / "sessions"
    SqliteStore(str(file)).close()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("spec", ["tape:1", "sqlite:/none/sessions", "redis://127.0.0.1:1"])
def test_a_store_that_cannot_be_opened_is_refused(spec):
    with pytest.raises(DnpGuardError):
        open_store(spec)


def test_no_file_holds_the_findings_of_an_ended_session(tmp_path):
    store = SqliteStore(str(tmp_path / "sessions"))
    store.add(SESSION, 1)
    for version in range(50):
        store.save(replace(SESSION, version=version, state="a hidden star " * 1000))
    store.save(replace(SESSION, version=50, state="", status="finished"))
    store.expired(NOW)
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    store.close()
    assert b"hidden star" not in left
