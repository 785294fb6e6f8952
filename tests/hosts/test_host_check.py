"""The checks of a running web UI (``host_check``) pass or fail as they should on the stand-in for AUTOMATIC1111."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from dnp_guard.server.settings import Settings
from tests.hosts import host_check, host_check_a1111
from tests.hosts.a1111_host import Api, Host
from tests.hosts.scripted_service import POLICY, Records
from tests.integrations.conftest import listening

pytestmark = pytest.mark.models


@pytest.fixture
def service(monkeypatch, tmp_path):
    """Return an address at which the checks will start their guard service, in this process to save time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    served = []

    @contextmanager
    def serving(address, looks, **changes):
        folder = tmp_path / f"service-{len(served)}"
        served.append(folder)
        folder.mkdir()
        (folder / "policy.yaml").write_text(json.dumps({**POLICY, **changes}), encoding="utf-8")
        (folder / "looks.json").write_text(json.dumps(looks), encoding="utf-8")
        settings = Settings(
            policy=str(folder / "policy.yaml"),
            vlm=f"scripted:{folder / 'looks.json'}",
            audit=(str(folder / "audit.jsonl"),),
        )
        with listening(settings, urlsplit(address).port):
            yield Records(folder / "audit.jsonl")

    monkeypatch.setattr(host_check_a1111, "serving", serving)
    monkeypatch.setenv("DNP_GUARD_URL", url)
    return url


def run(host, service, plain, capsys):
    with host, Api(host) as api:
        code = host_check.main(
            ["--a1111", api.url, "--service", service, "--plain", str(plain), "--size", "32", "--steps", "10"]
        )
    return code, capsys.readouterr().out


def test_a_guarded_host_passes_every_check(service, tmp_path, capsys):
    assert run(Host(None), service, tmp_path / "plain.json", capsys)[0] == 0

    code, out = run(Host(), service, tmp_path / "plain.json", capsys)

    assert code == 0, out
    assert "FAIL" not in out
    assert "skip" not in out
    assert out.count("observed equals plain") == 9


def test_a_host_that_never_calls_back_fails(service, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(host_check_a1111, "ways", lambda *_: {})
    host = Host()
    monkeypatch.setattr(host, "callbacks", lambda kind, *args: None)

    code, out = run(host, service, tmp_path / "plain.json", capsys)

    assert code == 1
    assert "FAIL  separate: says steered" in out


def test_no_host_is_a_usage_error(capsys):
    assert host_check.main([]) == 2


def test_a_host_that_does_not_run_is_said_in_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert host_check.main(["--a1111", f"http://127.0.0.1:{port}"]) == 2
    message = capsys.readouterr().err
    assert "refused" in message
    assert message.count("\n") == 1
