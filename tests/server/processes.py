"""Run a guard service in separate processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.waiting import wait_until


class Running:
    """A running service.

    Attributes:
        process: the main process.
        url: base URL of the service.
    """

    def __init__(self, process, url, verify):
        self.process, self.url, self._verify = process, url, verify

    @property
    def workers(self):
        """Ids of the worker processes, without multiprocessing's resource tracker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in _command(pid)]

    @property
    def cpu_s(self):
        """Processor time that the service and its workers have used so far, in seconds."""
        ticks = 0
        for pid in {self.process.pid, *self.workers}:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self, worker):
        """Kill a worker, as a crash would end it, and wait until it is gone."""
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker not in self.workers)

    def wait(self):
        """Wait until the service reports that it is ready."""
        wait_until(self._ready, 300)

    def wait_for(self, workers):
        """Wait until at least this number of workers runs; fail if the service ends."""
        wait_until(lambda: len(self.workers) >= workers or self._ended())
        assert not self._ended(), "the service ended"

    def _ready(self):
        try:
            return httpx2.get(f"{self.url}/readyz", trust_env=False, verify=self._verify).is_success
        except httpx2.HTTPError:
            assert not self._ended(), "the service ended"
            return False

    def _ended(self):
        return self.process.poll() is not None


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # the worker has ended meanwhile
        return b""


@contextmanager
def serving(*options, verify=True, command=(sys.executable, "-m", "dnp_guard")):
    """Run ``dnp-guard serve`` with options on a free port, and yield the running service.

    Args:
        options: options of the command.
        verify: how to check the service's TLS certificate, as httpx takes it.
        command: how to start ``dnp-guard``.
    """
    process = subprocess.Popen(
        [*map(str, command), "serve", "--port", "0", *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        running = Running(process, line.rpartition(" at ")[2].strip(), verify)
        running.wait()
        yield running
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
