"""The service runs as a program: it starts, ends cleanly, and refuses bad options."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn
from PIL import Image

from dnp_guard.cli import run
from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service
from dnp_guard.server.app import create
from dnp_guard.server.run import check_tested
from dnp_guard.server.settings import Settings
from tests.server.processes import serving
from tests.waiting import wait_until

HOST = Host(name="tests")
RED = Image.new("RGB", (16, 16), "red")


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "looks.json"
    file.write_text(json.dumps([{"a star": 0.0}]))
    return file


def test_a_service_has_built_its_routes_before_it_serves(script):
    assert create(Settings(policy="glyphs", vlm=f"scripted:{script}")).openapi_schema is not None


def test_a_service_that_is_told_to_end_abandons_what_is_open(script, tmp_path):
    log = tmp_path / "audit.jsonl"
    with (
        serving("--policy", "glyphs", "--vlm", f"scripted:{script}", "--audit", log) as running,
        Service(running.url) as client,
    ):
        client.open(images=1, steps=25, host=HOST)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait() == 0
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "request.abandoned"


ENDED_AT_ONCE = """
import signal, sys
from dnp_guard.server.run import Listener, run
from dnp_guard.server.settings import Settings

def end(url):
    signal.raise_signal(signal.SIGTERM)

settings = Settings(policy="glyphs", vlm=f"scripted:{sys.argv[1]}")
sys.exit(run(Listener(port=0), settings, workers=int(sys.argv[2]), grace_s=1, started=end))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_is_ended_as_soon_as_it_says_its_address_ends(script, workers):
    ended = subprocess.run([sys.executable, "-c", ENDED_AT_ONCE, script, str(workers)], timeout=60, check=False)
    assert ended.returncode == 0


def test_sessions_in_a_named_store_outlive_the_service(script, tmp_path):
    options = ("--policy", "glyphs", "--vlm", f"scripted:{script}", "--store", f"sqlite:{tmp_path / 'sessions'}")
    with serving(*options) as running, Service(running.url) as client:
        session = client.open(images=1, steps=25, host=HOST)
        session.query(1, [RED], ended=True)
    with serving(*options) as running, Service(running.url) as client:
        session.service = client
        (verdict,) = session.final([RED])
    assert verdict.decision == "clean"


class Slow:
    """A backend that answers only after the test has released it."""

    name = "slow"

    def __init__(self):
        self.asked, self.let = threading.Event(), threading.Event()

    def ask(self, images, questions):
        self.asked.set()
        self.let.wait(60)
        return [[0.0] * len(questions) for _ in images]


def test_requests_in_flight_are_answered_before_the_end():
    slow = Slow()
    server = uvicorn.Server(
        uvicorn.Config(create(Settings(policy="glyphs", vlm=""), slow), port=0, log_level="warning")
    )
    listening = server.config.bind_socket()
    with ThreadPoolExecutor() as pool, Service(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
        served = pool.submit(server.run, sockets=[listening])
        wait_until(client.ready)
        session = client.open(images=1, steps=25, host=HOST)
        query = pool.submit(session.query, 2, [RED])
        slow.asked.wait(60)
        server.should_exit = True
        slow.let.set()
        assert query.result(60)[0].action == "none"
        served.result(60)
    listening.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "anyone could use it"),  # noqa: S104 (refused)
        (["--host", "0.0.0.0", "--token-file", "TOKENS"], "unencrypted"),  # noqa: S104 (refused)
        (["--tls-cert", "TOKENS"], "go together"),
        (["--tls-clients", "TOKENS"], "client certificates need TLS"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "no such file"),
        (["--token-file", "LOOKS"], "is not a token file"),
        (["--receipt-key", "LOOKS"], "holds no key"),
        (["--store", "tape:1"], "is not a session store"),
        (["--policy", "none.yaml"], "cannot read a policy"),
        (["--policy", "UNTESTED", "--watch"], "policy `p` is enforced and has no tests"),
        (["--port", "TAKEN"], "Address already in use\n"),
        (["--console", "--audit", "LOG"], "nobody could sign in"),
        (["--console", "--audit", "LOG", "--workers", "2"], "nobody could sign in"),
        (["--console", "--workers", "2"], "needs a log in a file"),
        (["--token-file", "LOOKS", "--workers", "2"], "is not a token file"),
    ],
)
def test_invalid_options_are_refused_before_the_service_starts(script, tmp_path, capsys, options, message):
    tokens = tmp_path / "tokens.json"
    assert run(["token", "add", str(tokens)]) == 0
    with socket.create_server(("127.0.0.1", 0)) as other:
        untested = tmp_path / "p.yaml"
        untested.write_text("format: 1\nname: p\ncategories: [{id: star, negative: [star]}]\n")
        files = {
            "UNTESTED": str(untested),
            "TOKENS": str(tokens),
            "LOOKS": str(script),
            "TAKEN": str(other.getsockname()[1]),
        }
        given = [files.get(option, option) for option in options]
        assert run(["serve", "--policy", "glyphs", "--vlm", f"scripted:{script}", "--port", "0", *given]) == 2
    assert message in capsys.readouterr().err


def test_a_service_that_does_not_reload_warns_of_policies_without_tests(tmp_path):
    policy = tmp_path / "p.yaml"
    policy.write_text("format: 1\nname: p\ncategories: [{id: star, negative: [star]}]\n")
    (warning,) = check_tested(Settings(policy=str(policy), vlm=""))
    assert warning.file == str(policy)
    assert warning.code == "untested"
    assert check_tested(Settings(policy="glyphs", vlm="", watch=True)) == []
