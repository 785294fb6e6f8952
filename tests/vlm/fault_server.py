"""Run a model server on loopback that misbehaves on demand, as real model servers and proxies in front of them do."""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_JSON = "application/json"


def answer_of(body: bytes) -> object:
    """Return the correct answer to a request: yes with a probability of 0.25, in the protocol of the request.

    The protocols are systemone (``questions`` is a mapping), decisions (``questions`` is a list), and OpenAI's chat.
    """
    request = json.loads(body)
    match request.get("questions"):
        case dict() as asked:
            return {"model": "m", "answers": {name: {"type": "noul", "noul": 0.25} for name in asked}}
        case list() as asked:
            answers = [{"type": "predicate", "name": question["name"], "probability": 0.25} for question in asked]
            return {"model": "m", "answers": answers, "usage": {}}
    tops = [{"token": " Yes", "logprob": -1.3862943611198906}, {"token": "no", "logprob": -0.2876820724517809}]
    content = [{"token": "no", "logprob": -0.28, "top_logprobs": tops}]
    return {"model": "m", "choices": [{"message": {"content": "No."}, "logprobs": {"content": content}}]}


class FaultServer:
    """A model server that answers correctly or with a fault.

    Attributes:
        fault: called in place of an answer with the server, the connection and the request's body; None to answer
            correctly.
        requests: bodies of the requests, in order of arrival.
        headers: heads of the requests, in lower case.
        connections: number of accepted connections.
    """

    def __init__(self) -> None:
        self.fault: Callable[[FaultServer, socket.socket, bytes], None] | None = None
        self.requests: list[bytes] = []
        self.headers: list[str] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, name="fault-server")
        self._accepting.start()

    def close(self) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(5)
            assert not thread.is_alive()

    def send(self, connection: socket.socket, content: bytes, *, status: str = "200 OK", more: str = "") -> None:
        kind = "" if "Content-Type" in more else f"Content-Type: {_JSON}\r\n"
        connection.sendall(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{kind}{more}\r\n".encode() + content
        )

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="fault-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            reader = connection.makefile("rb")
            while head := _head(reader):
                sizes = [int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")]
                body = reader.read(sum(sizes))
                self.requests.append(body)
                self.headers.append(head.lower())
                if not sizes:  # the server answers posted questions only
                    self.send(connection, b"{}", status="404 Not Found")
                    continue
                if self.fault is not None:
                    self.fault(self, connection, body)
                else:
                    self.send(connection, json.dumps(answer_of(body)).encode())


def _head(reader) -> str:
    lines = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line.decode())
    return "".join(lines)


@contextmanager
def running() -> Iterator[FaultServer]:
    server = FaultServer()
    try:
        yield server
    finally:
        server.close()


def reset_mid_body(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"answers": {')
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
    raise OSError


def truncated(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"answers": {')
    connection.shutdown(socket.SHUT_WR)
    raise OSError


def drip(server: FaultServer, connection: socket.socket, text: bytes) -> None:
    while not server.stopping.wait(0.02):
        connection.sendall(text)


def slow_loris(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip(server, connection, b"a")


def slow_body(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    drip(server, connection, b" ")


def silence(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    server.stopping.wait()


def endless(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    drip(server, connection, b"8\r\ndata: x\n\r\n")


def huge(server: FaultServer, connection: socket.socket, body: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n")
    for _ in range(800):
        connection.sendall(b" " * 65536)


def status(line: str, more: str = "", content: bytes = b"{}") -> Callable:
    return lambda server, connection, body: server.send(connection, content, status=line, more=more)


def replied(content: bytes, more: str = "") -> Callable:
    return status("200 OK", more, content)


def changed(change: Callable[[dict], object]) -> Callable:
    """Return a fault that sends the correct answer after ``change`` has changed it."""

    def fault(server: FaultServer, connection: socket.socket, body: bytes) -> None:
        right = answer_of(body)
        server.send(connection, json.dumps(change(right)).encode())

    return fault


def with_probability(value: object) -> Callable:
    def change(right: dict) -> dict:
        for answer in right.get("answers", {}).values():
            answer["noul"] = value
        return right

    return changed(change)


def one_less(right: dict) -> dict:
    right["answers"].popitem()
    return right


def renamed(right: dict) -> dict:
    return right | {"answers": {f"x{name}": answer for name, answer in right["answers"].items()}}


HTML = b"<!doctype html><title>Sign in</title><p>yes</p>"

FAULTS: dict[str, tuple[Callable, str]] = {
    "reset mid-body": (reset_mid_body, "vlm_error"),
    "truncated": (truncated, "vlm_error"),
    "slow-loris header": (slow_loris, "vlm_timeout"),
    "slow body": (slow_body, "vlm_timeout"),
    "no answer": (silence, "vlm_timeout"),
    "never-ending stream": (endless, "vlm_timeout"),
    "429, Retry-After in time": (status("429 Too Many Requests", "Retry-After: 0.05\r\n"), "vlm_error"),
    "429, Retry-After too late": (status("429 Too Many Requests", "Retry-After: 60\r\n"), "vlm_error"),
    "500": (status("500 Internal Server Error"), "vlm_error"),
    "404": (status("404 Not Found"), "vlm_error"),
    "redirect": (status("302 Found", "Location: http://127.0.0.1:9/\r\n"), "vlm_bad_answer"),
    "200 with HTML": (replied(HTML, "Content-Type: text/html\r\n"), "vlm_bad_answer"),
    "empty 200": (replied(b""), "vlm_bad_answer"),
    "wrong JSON": (replied(b'{"answers": {"q0": {"type": "noul", "noul": 0.2}'), "vlm_bad_answer"),
    "another JSON": (replied(b"[1, 2, 3]"), "vlm_bad_answer"),
    "deeply nested JSON": (replied(b"[" * 200_000), "vlm_bad_answer"),
    "compressed": (replied(b"\x1f\x8b", "Content-Encoding: gzip\r\n"), "vlm_bad_answer"),
    "wrong number of answers": (changed(one_less), "vlm_bad_answer"),
    "answers to other questions": (changed(renamed), "vlm_bad_answer"),
    "NaN": (with_probability(float("nan")), "vlm_bad_answer"),
    "probability 1.7": (with_probability(1.7), "vlm_bad_answer"),
    "probability as text": (with_probability("0.2"), "vlm_bad_answer"),
    "50 MB body": (huge, "vlm_bad_answer"),
}
"""Faults by name, with the reason that the audit must record for them."""
