"""Sessions in Redis, for workers on several machines. Needs the extra ``redis``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs
from dnp_guard.server.sessions import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENDS = "dnp_guard:ends"
"""All sessions, sorted by expiry. The worker that removes a name from this set owns the session."""
_LEFT_S = 3600
"""Seconds after its expiry for which a session is kept, so that a worker can end it properly."""
_WINDOWS_S = 180


def connect(url: str) -> RedisStore:
    """Connect to the Redis server at a URL, and return the store in it.

    Raises:
        MissingExtra: the package ``redis`` is not installed.
        DnpGuardError: no server answers at the URL, or it is malformed.
    """
    needs("redis", "this store")
    import redis  # noqa: PLC0415 (an extra)

    try:
        client = redis.Redis.from_url(url, decode_responses=True)
        client.ping()
    except (redis.RedisError, ValueError) as error:
        raise DnpGuardError(f"the store cannot be reached: {error}", hint="Write redis://HOST:6379/0.") from error
    return RedisStore(client)


class RedisStore:
    """Keeps sessions in Redis, where workers on several machines can share them.

    Args:
        client: a redis-py client that decodes responses.
    """

    def __init__(self, client: Any) -> None:
        self.private = False
        self._client = client

    def add(self, session: Stored, most: int) -> bool:
        """Add a new session; see :meth:`~dnp_guard.server.sessions.SessionStore.add`."""

        def change(pipe: Any) -> bool:
            few = bool(pipe.scard(_open(session.token)) < most)
            pipe.multi()
            if few:
                self._put(pipe, session)
            return few

        return bool(self._client.transaction(change, _open(session.token), value_from_callable=True))

    def load(self, session: str) -> Stored | None:
        """Load a session; see :meth:`~dnp_guard.server.sessions.SessionStore.load`."""
        text = self._client.get(_key(session))
        return Stored(**json.loads(text)) if text else None

    def save(self, session: Stored) -> bool:
        """Save a session; see :meth:`~dnp_guard.server.sessions.SessionStore.save`."""

        def change(pipe: Any) -> bool:
            text = pipe.get(_key(session.id))
            same = text is not None and bool(json.loads(text)["version"] == session.version)
            pipe.multi()
            if same:
                self._put(pipe, replace(session, version=session.version + 1))
            return same

        return bool(self._client.transaction(change, _key(session.id), value_from_callable=True))

    def expired(self, now: float) -> Sequence[Stored]:
        """Remove and return the expired sessions; see :meth:`~dnp_guard.server.sessions.SessionStore.expired`."""
        return self._taken(self._client.zrangebyscore(_ENDS, "-inf", now))

    def take_open(self) -> Sequence[Stored]:
        """Remove and return the open sessions; see :meth:`~dnp_guard.server.sessions.SessionStore.take_open`."""
        names = self._client.zrange(_ENDS, 0, -1)
        return self._taken([name for name in names if (stored := self.load(name)) and stored.status == "open"])

    def count(self, token: str, window: int) -> int:
        """Count a request of a token; see :meth:`~dnp_guard.server.sessions.SessionStore.count`."""
        key = f"dnp_guard:count:{token}:{window}"
        with self._client.pipeline() as pipe:
            number, _ = pipe.incr(key).expire(key, _WINDOWS_S).execute()
        return int(number)

    def close(self) -> None:
        """Close the connections to the server; see :meth:`~dnp_guard.server.sessions.SessionStore.close`."""
        self._client.close()

    def _taken(self, names: Sequence[str]) -> list[Stored]:
        sessions = []
        for name in names:
            if self._client.zrem(_ENDS, name) and (stored := self.load(name)):
                self._client.delete(_key(name))
                self._client.srem(_open(stored.token), name)
                sessions.append(stored)
        return sessions

    @staticmethod
    def _put(pipe: Any, session: Stored) -> None:
        pipe.set(_key(session.id), json.dumps(asdict(session)), exat=int(session.expires) + _LEFT_S)
        pipe.zadd(_ENDS, {session.id: session.expires})
        if session.status == "open":
            pipe.sadd(_open(session.token), session.id)
        else:
            pipe.srem(_open(session.token), session.id)


def _key(session: str) -> str:
    return f"dnp_guard:session:{session}"


def _open(token: str) -> str:
    return f"dnp_guard:open:{token}"
