"""Let SQLite databases fail at a chosen call."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from itertools import count

import pytest


class Failing:
    """A wrapper of a SQLite connection that fails at a chosen call of ``execute``."""

    def __init__(self, database):
        self._database = database
        self.disarm()

    def arm(self, at, fail, *, after):
        """Call ``fail``, which raises or kills the process, before or after the ``at``-th statement from now."""
        self._calls, self._at, self._fail, self._after, self.hit = count(1), at, fail, after, False

    def disarm(self):
        """Let all further calls succeed."""
        self._at = None

    def execute(self, *arguments):
        failing = self._at is not None and next(self._calls) == self._at
        if failing and not self._after:
            self._end()
        result = self._database.execute(*arguments)
        if failing:
            self._end()
        return result

    def _end(self):
        self.hit = True
        self._fail()

    def __getattr__(self, name):
        return getattr(self._database, name)


@contextmanager
def failing_databases():
    """Wrap every SQLite database that is opened inside a ``with`` block; yield the list of wrappers, in order."""
    opened, connect = [], sqlite3.connect

    def connected(*arguments, **more):
        opened.append(Failing(connect(*arguments, **more)))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connected)
        yield opened
