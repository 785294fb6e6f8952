"""The service limits the resources that strangers and careless hosts can take, before it reads their requests."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from dnp_guard.server import tokens
from dnp_guard.server.gate import Gate
from dnp_guard.server.settings import Limits
from dnp_guard.server.wire import FIELDS, HEAD_BYTES
from tests.server.conftest import HOST, ask, begin, data_url, finish
from tests.server.processes import serving

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
NOTHING = {"a star": 0.0}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "looks.json").write_text(json.dumps([NOTHING]))
    options = ("--policy", "glyphs", "--vlm", f"scripted:{folder / 'looks.json'}", "--max-connections", 500)
    with serving(*options) as started:
        yield started


def megabytes(running):
    """Return the megabytes of memory that the service's process uses."""
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def connected(running):
    parts = urlsplit(running.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def pushed(running, pieces):
    """Send pieces of a request until the service closes the connection; return the first line of its answer."""
    with connected(running) as connection:
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(OSError):
            return connection.recv(4096).partition(b"\r\n")[0].decode()
    return ""


def is_healthy(running):
    """Return whether the service reports its health in half the time that it grants an unfinished request."""
    within = Limits().request_s / 2
    return httpx2.get(f"{running.url}/healthz", trust_env=False, timeout=within).is_success


LINE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
PAD = b"x" * 100_000


@linux
@pytest.mark.parametrize(
    "pieces",
    [
        [LINE, *[b"X-Pad: " + b"x" * 1000 + b"\r\n"] * 300_000],
        [LINE, b"X-Pad: ", *[PAD] * 1000],
        [b"GET /", *[PAD] * 1000],
        [LINE, *[b"A:b\r\n"] * 1000, b"\r\n"],
        [CHUNKED, *[b"X-Pad: " + b"x" * 1000 + b"\r\n"] * 300_000],
        [CHUNKED, b"X-Pad: ", *[PAD] * 1000],
    ],
    ids=["300 MB of headers", "a header of 100 MB", "a line of 100 MB", "1,000 headers", "trailers", "a trailer"],
)
def test_headers_without_end_cost_nothing_and_nobody(running, pieces, request, service_table):
    before, began = megabytes(running), time.monotonic()
    response = pushed(running, pieces)
    assert response in {
        "HTTP/1.1 431 Request Header Fields Too Large",
        "",
    }  # or the connection is reset, with bytes unread
    spent, grown = time.monotonic() - began, megabytes(running) - before
    assert grown < 20
    assert is_healthy(running)
    name, bound = request.node.callspec.id, f"{HEAD_BYTES // 1024} KiB and {FIELDS} headers"
    service_table.append(
        (name, bound, response.partition(" ")[2] or "connection reset", f"{spent:.2f}", f"{grown:.1f}")
    )


def test_as_many_headers_as_are_read_are_answered(running):
    field = b"X-Pad: " + b"x" * (HEAD_BYTES // FIELDS - 40) + b"\r\n"
    assert pushed(running, [LINE, field * (FIELDS - 1), b"\r\n"]) == "HTTP/1.1 200 OK"


HALF = b"POST /v1/sessions HTTP/1.1\r\nContent-Length: 9\r\nHost: localhost\r\n"


@pytest.mark.parametrize("half", [b"", HALF, HALF + b"\r\n", CHUNKED])
def test_1100_half_open_requests_keep_nobody_out(running, half, service_table):
    before = megabytes(running)
    with ExitStack() as stack:
        for _ in range(1100):
            connection = stack.enter_context(connected(running))
            with suppress(OSError):
                connection.sendall(half)
        began = time.monotonic()
        assert is_healthy(running)  # while all of them are open
        waited = time.monotonic() - began
    grown = f"{megabytes(running) - before:.1f}"
    service_table.append(
        (f"1,100 half-open requests, {len(half)} bytes each", "500 connections", "health told", f"{waited:.2f}", grown)
    )


def test_1100_idle_connections_keep_nobody_out(running):
    with ExitStack() as stack:
        for _ in range(1100):
            connection = stack.enter_context(connected(running))
            connection.sendall(LINE + b"\r\n")
            connection.recv(1000)
        assert is_healthy(running)


def test_a_host_that_was_there_before_goes_on_beside_1100_half_open_requests(running):
    with httpx2.Client(base_url=running.url, trust_env=False, timeout=60) as host, ExitStack() as stack:
        session = begin(host).json()["session"]
        for _ in range(1100):
            stack.enter_context(connected(running)).sendall(LINE)
        assert finish(host, session).is_success


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path, service_table):
    (tmp_path / "looks.json").write_text(json.dumps([NOTHING]))
    options = ("--policy", "glyphs", "--vlm", f"scripted:{tmp_path / 'looks.json'}", "--request-seconds", 1)
    with serving(*options) as running:
        half = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        began = time.monotonic()
        assert pushed(running, [half]) == "HTTP/1.1 408 Request Timeout"
        spent = time.monotonic() - began
    service_table.append(("a body that does not come", "1 s", "408", f"{spent:.2f}", "-"))


def scans(count):
    """Return a progressive JPEG as a data URL, with its last scan repeated ``count`` times."""
    buffer = io.BytesIO()
    Image.new("RGB", (2048, 2048), "red").save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return (
        "data:image/jpeg;base64," + base64.b64encode(content[:last] + content[last:-2] * count + b"\xff\xd9").decode()
    )


@pytest.fixture
def decoded(monkeypatch):
    """Return a list to which every JPEG is added that is decoded during the test."""
    pictures, load = [], JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda picture: pictures.append(picture) or load(picture))
    return pictures


def final(client, data):
    session = begin(client, images=len(data)).json()["session"]
    began = time.monotonic()
    answer = client.post(
        f"/v1/sessions/{session}/final",
        json={"images": [{"index": i, "data": data_url} for i, data_url in enumerate(data)]},
    )
    return answer.json(), time.monotonic() - began


def test_a_jpeg_of_5000_scans_is_refused_undecoded(serve, service_table, decoded):
    answer, seconds = final(serve(NOTHING), [scans(5000)])
    assert answer["detail"] == "Image 0 has over 64 scans."
    assert decoded == []
    service_table.append(("a progressive JPEG of 5,000 scans", "64 scans", "422", f"{seconds:.2f}", "-"))


def test_a_progressive_jpeg_is_taken(serve, decoded):
    assert "images" in final(serve(NOTHING), [scans(1)])[0]
    assert decoded


def test_sixteen_large_pictures_are_refused_undecoded(serve, service_table):
    answer, seconds = final(serve(NOTHING), [data_url(size=(4096, 4096))] * 16)
    assert answer["detail"] == "268435456 pixels in all; at most 67108864 per request are allowed."
    service_table.append(("sixteen 4096² PNGs in a request", "64 Mpx a request", "422", f"{seconds:.2f}", "-"))


def test_pixels_of_all_requests_together_are_bounded_and_nobody_fails_by_it(serve, service_table):
    client = serve(NOTHING, limits={"total_pixels": 64 * 64, "pixels_held": 64 * 64})
    first, second = (begin(client).json()["session"] for _ in range(2))
    flight = client.app.state.service.flight
    with flight.request() as take:
        take(1)
        full = [{"index": 0, "data": data_url(size=(64, 64))}]
        refused = client.post(f"/v1/sessions/{first}/queries", json={"step": 2, "progress": 0.1, "images": full})
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:dnp-guard:problem:busy"
        assert refused.headers["retry-after"] == "1"
        assert ask(client, second, 2).is_success  # a smaller one still fits
    assert client.post(f"/v1/sessions/{first}/queries", json={"step": 2, "progress": 0.1, "images": full}).is_success
    for step in range(3, 23):
        ask(client, first, step)
    assert finish(client, first).json()["images"][0]["decision"] == "clean"
    service_table.append(("large pictures in many requests", "256 Mpx a worker", "409, sent again: 200", "-", "-"))


def test_bodies_of_all_requests_together_are_bounded(serve):
    client = serve(NOTHING, limits={"body": 1000})
    gate = client.app.middleware_stack.app  # the error middleware comes before it
    while not isinstance(gate, Gate):
        gate = gate.app
    with gate.flight.request() as take:
        take(16_000)
        assert begin(client).json()["type"] == "urn:dnp-guard:problem:busy"
    assert begin(client).is_success


def test_a_million_unknown_keys_are_told_back_as_a_few(serve, service_table):
    client = serve(NOTHING)
    began = time.monotonic()
    answer = client.post("/v1/sessions", json={f"key{number}": 0 for number in range(1_000_000)})
    assert answer.status_code == 413
    assert len(answer.content) < 1000
    spent = time.monotonic() - began
    service_table.append(("1,000,000 unknown keys", "20,000 quotation marks", "413", f"{spent:.2f}", "-"))


def test_sixteen_of_many_errors_are_listed_and_the_others_counted(serve):
    answer = serve(NOTHING).post("/v1/sessions", json={"k" * 1000 + str(number): 0 for number in range(5000)})
    document = answer.json()
    assert answer.status_code == 422
    assert len(document["errors"]) == 16
    assert document["more"] == 5004 - 17
    assert len(answer.content) < 20_000


MALFORMED = [
    b"",
    b"{",
    b"[" * 5000,
    b"null",
    b'{"protocol": 2}',
    b"\xff\xfe",
    b'{"protocol": 1, "images": 1e999}',
    b"0" * 99,
]


@pytest.mark.parametrize("content", MALFORMED)
def test_malformed_requests_are_counted_towards_the_rate(serve, content):
    client = serve(NOTHING, limits={"rate": 5})
    codes = [client.post("/v1/sessions", content=content).status_code for _ in range(8)]
    assert codes[-1] == 429
    assert 500 not in codes


def test_1000_malformed_requests_keep_nobody_out(serve, tmp_path, service_table):
    began = time.monotonic()
    file = tmp_path / "tokens.json"
    careless, other = tokens.add(file), tokens.add(file)
    client = serve(NOTHING, token_file=file, limits={"rate": 100})
    codes = set()
    for number in range(1000):
        header = {"Authorization": f"Bearer {careless}"}
        codes.add(client.post("/v1/sessions", content=MALFORMED[number % len(MALFORMED)], headers=header).status_code)
    header = {"Authorization": f"Bearer {other}"}
    answer = client.post("/v1/sessions", json={"protocol": 1, "host": HOST, "images": 1, "steps": 25}, headers=header)
    assert codes == {422, 429}
    assert answer.status_code == 201
    spent = time.monotonic() - began
    service_table.append(("1,000 malformed requests", "100 a minute a token", "422, then 429", f"{spent:.2f}", "-"))


def test_a_name_made_for_tests_is_no_address_of_this_machine(serve):
    answer = serve(NOTHING).post("/v1/sessions", json={}, headers={"Host": "testserver"})
    assert answer.status_code == 403
