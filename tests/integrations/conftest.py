"""Provide a guard service on loopback, and stand-ins for AUTOMATIC1111's web UI that use it."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
import uvicorn

from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.policies import written


@contextmanager
def listening(settings, port=0):
    """Run a guard service in a thread, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(create(settings), log_level="error", access_log=False))
    bound = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="service")
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


class Guarded:
    """A factory of the services and guarded hosts of one test."""

    def __init__(self, folder, stack, monkeypatch) -> None:
        self.folder, self._stack, self._monkeypatch = folder, stack, monkeypatch

    def serve(self, looks, *, vlm=None, shipped=None, settings=None, **changes):
        """Start a service with scripted answers, set its address for the hosts, and return the address.

        Args:
            looks: answers of the scripted backend, look by look.
            vlm: another backend.
            shipped: name of a shipped policy, in place of the tests' policy.
            settings: further settings of the service.
            changes: keys to change in the tests' policy.
        """
        script, file = self.folder / "looks.json", written(self.folder, **changes)
        script.write_text(json.dumps(looks))
        made = Settings(
            policy=shipped or str(file),
            vlm=vlm or f"scripted:{script}",
            audit=(str(self.folder / "audit.jsonl"),),
            **settings or {},
        )
        url = self._stack.enter_context(listening(made))
        self._monkeypatch.setenv("DNP_GUARD_URL", url)
        return url

    def host(self, **options):
        from tests.hosts.a1111_host import Host

        return self._stack.enter_context(Host(**options))

    def records(self, event=None):
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [record for record in records if event in {None, record["event"]}]


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    with ExitStack() as stack:
        yield Guarded(tmp_path, stack, monkeypatch)


@pytest.fixture
def plain():
    """Return a function that generates images on a host without the extension."""
    from tests.hosts.a1111_host import Host

    def generate(**asked):
        from tests.hosts.a1111_host import Processing

        options = asked.pop("options", {})
        with Host(None, **options) as host:
            return SimpleNamespace(**vars(host.process(Processing(**asked))), host=host)

    return generate
