"""Start the guard service as a program of its own when it is first needed, and stop it with the host."""

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
"""Variables that would make the service import the host's packages in place of its own."""

_POLL_S = 0.25
_STOP_S = 10.0


class Service:
    """A starter of one service, which stops only the service that it started.

    Attributes:
        process: the started service; None before its start and after its end.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ensure(self, client: Client, command: Sequence[str], within_s: float) -> bool:
        """Make sure that a service answers; start one if none does.

        Args:
            client: client of the service.
            command: command line that starts it; empty to start nothing.
            within_s: seconds to wait for it.

        Returns:
            Whether the service is ready.
        """
        if not command:
            return True  # somebody else starts it; opening the session will tell
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
        """Stop the started service, if there is one."""
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
