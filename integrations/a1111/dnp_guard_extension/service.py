"""Start the guard service as a separate process when it is first needed, and stop it when the host exits."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .client import Client

log = logging.getLogger("dnp_guard")

_OF_THE_HOST = ("PYTHONPATH", "PYTHONHOME")
"""Environment variables to remove, because they would make the service import the host's packages."""

_POLL_S = 0.25
_STOP_S = 10.0


class Service:
    """The guard service as a child process; a service that somebody else started is used and never stopped.

    Attributes:
        process: the process that was started here; None before its start and after :meth:`stop`.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ensure(self, client: Client, command: Sequence[str], within_s: float) -> bool:
        """Check that the service answers, and start it if it does not.

        Args:
            client: client of the service.
            command: command line that starts it; empty if somebody else starts it, and then nothing is checked.
            within_s: seconds to wait for it.

        Returns:
            Whether the service is ready; true for an empty command.
        """
        if not command:
            return True  # somebody else starts it; opening the session fails if nobody did
        with self._lock:
            if client.ready():
                return True
            if self.process is None or self.process.poll() is not None:
                environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_HOST}
                try:
                    self.process = subprocess.Popen(  # noqa: S603 (the operator's)
                        list(command), stdin=subprocess.DEVNULL, env=environment
                    )
                except OSError:
                    log.exception("DNP Guard: %s cannot be started", command[0])
                    return False
                atexit.register(self.stop)
            return self._wait(client, within_s)

    def stop(self) -> None:
        """Stop the process that was started here, if it still runs."""
        process, self.process = self.process, None
        atexit.unregister(self.stop)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, client: Client, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if client.ready():
                return True
            if self.process is None or self.process.poll() is not None:
                log.error("DNP Guard: the service ended while it was starting")
                return False
            time.sleep(_POLL_S)
        return False
