"""Watches a policy file or a folder of policies, and says when it has changed and come to rest."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from dnp_guard.policy.read.folder import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

_ENDINGS = (".yaml", ".yml", ".json")
_LARGEST = 4 * 1024 * 1024
"""Bytes of the largest file that a policy is made from; of a larger one, time and size are enough."""


def look(path: Path, inputs: Iterable[Path] = ()) -> Mapping[Path, object]:
    """The contents of everything that a policy may be made from, or that decides on it, as a digest of each file.

    That is what lies in its folder and in the folder of its tests, and what it was last made from. Other folders below
    are not looked into: a policy may lie at the top of a large tree. Times and sizes would not do: ``rsync -t`` and
    releases with normalised times exchange a file and keep both.
    """
    folder = path if path.is_dir() else path.parent
    found = {}
    for file in {*named(folder.glob("*")), *named((folder / "tests").glob("*")), *inputs}:
        if file.suffix in _ENDINGS:
            with suppress(OSError):  # gone since it was listed
                found[file] = _contents(file)
    return found


def _contents(file: Path) -> object:
    stat = file.stat()
    if stat.st_size > _LARGEST:
        return stat.st_mtime_ns, stat.st_size
    return hashlib.sha256(file.read_bytes()).digest()


class Watch:
    """Calls something when files have changed and then stayed as they are for one look.

    A file that is being written is not read half: a change counts only once two looks in a row see the same.

    Args:
        path: a policy file, or a folder of them.
        changed: called from the thread of the watch; it must not raise.
        every: seconds between looks. Where watchfiles is installed, the system says earlier when to look.
        inputs: says what the policy was last made from, such as bases in folders below.
        turn: called at each look, for what changes with the time alone; it must not raise.
    """

    def __init__(
        self,
        path: Path,
        changed: Callable[[], object],
        every: float,
        inputs: Callable[[], Iterable[Path]] = tuple,
        turn: Callable[[], object] = bool,
    ) -> None:
        self._path, self._changed, self._every, self._inputs = path, changed, every, inputs
        self._turn = turn
        self._acted = self._seen = look(path, inputs())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dnp-guard-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def check(self) -> bool:
        """Look once; whether something had changed and come to rest, and was acted on."""
        before, self._seen = self._seen, look(self._path, self._inputs())
        if self._seen != before or self._seen == self._acted:
            return False
        self._acted = self._seen
        self._changed()
        return True

    def _run(self) -> None:
        for _ in self._ticks():
            self.check()
            self._turn()

    def _ticks(self) -> Iterator[object]:
        """One each time that it is time to look, until the watch is closed."""
        try:
            import watchfiles  # noqa: PLC0415 (an extra)
        except ImportError:
            while not self._stop.wait(self._every):
                yield None
            return
        folder = self._path if self._path.is_dir() else self._path.parent
        patience = max(1, int(self._every * 1000))
        yield from watchfiles.watch(
            folder,
            stop_event=self._stop,
            rust_timeout=patience,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )
