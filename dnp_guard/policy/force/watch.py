"""Watch a policy file or a folder of policies, and report a change once the files are stable."""

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
"""Most bytes of a file to hash; for a larger file, time and size are compared."""


def contents(path: Path, inputs: Iterable[Path] = ()) -> Mapping[Path, object]:
    """Hash every file that a reload of the policies may depend on.

    These are the YAML and JSON files in the policy's folder and in the folder of its tests, and the files read by the
    last load. Other folders are not searched, since a policy may lie at the top of a large tree. Times and sizes are
    not enough: ``rsync -t`` and releases with normalised times replace a file and keep both.
    """
    folder = path if path.is_dir() else path.parent
    digests = {}
    for file in {*named(folder.glob("*")), *named((folder / "tests").glob("*")), *inputs}:
        if file.suffix in _ENDINGS:
            with suppress(OSError):  # gone since it was listed
                digests[file] = _digest(file)
    return digests


def _digest(file: Path) -> object:
    stat = file.stat()
    if stat.st_size > _LARGEST:
        return stat.st_mtime_ns, stat.st_size
    return hashlib.sha256(file.read_bytes()).digest()


class Watch:
    """Calls a function when files have changed and then stayed the same for one check.

    Two consecutive checks must see the same content, so that a half-written file is not read.

    Args:
        path: policy file, or folder of policies.
        changed: called from the thread of the watch after a change; must not raise.
        every: seconds between checks. If watchfiles is installed, the system triggers checks earlier.
        inputs: returns the files of the last load, such as bases in other folders.
        turn: called at every check, for changes that depend only on the time; must not raise.
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
        self._acted = self._seen = contents(path, inputs())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dnp-guard-watch", daemon=True)

    def start(self) -> None:
        """Start to check in a background thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the background thread, and wait for its end."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def check(self) -> bool:
        """Check the files once, and return whether a stable change was reported."""
        before, self._seen = self._seen, contents(self._path, self._inputs())
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
        """Yield whenever a check is due, until the watch is closed."""
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
