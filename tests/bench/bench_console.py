"""Time how long pages of the web console take to open over an audit log of a million records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from dnp_guard.audit.chain import ZERO, seal
from dnp_guard.audit.record import build
from dnp_guard.server import tokens
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = 1_000_000
A_GENERATION = 10


def write(log: Path, records: int) -> None:
    """Write an audit log with that many records, of generations that are clean, steered and blocked in turn."""
    policy = {"name": "default", "revision": "1", "digest": "d" * 64, "mode": "enforce"}
    prev = ZERO
    with log.open("wb") as file:
        for seq in range(records):
            number, place = divmod(seq, A_GENERATION)
            of = {"request": f"{number:032x}", "policy": policy, "tenant": f"tenant-{number % 7}"}
            finding = {"category": f"c{number % 9}", "term": "t", "probability": 0.9, "threshold": 0.5}
            seen = {"findings": [finding]} if number % 3 else {}
            if place == 0:
                body = build("request.started", **of)
            elif place == A_GENERATION - 1:
                body = build("request.finished", **of, image=0, decision=("clean", "steered", "blocked")[number % 3])
            else:
                body = build("query", **of, image=0, step=place, steps=25, decision="none", latency_ms=30.0, **seen)
            line, prev = seal(body, seq, prev)
            file.write(line + b"\n")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    write(folder / "audit.jsonl", RECORDS)
    (folder / "looks.json").write_text("{}")
    token = tokens.add(folder / "tokens.json", name="Olga", role="policy_owner")
    settings = Settings(
        policy="glyphs",
        vlm=f"scripted:{folder / 'looks.json'}",
        audit=(str(folder / "audit.jsonl"),),
        token_file=folder / "tokens.json",
        console=True,
    )
    app = create(settings)
    start = time.perf_counter()
    app.state.console.refresh()
    print(f"index of {RECORDS} records made in {time.perf_counter() - start:.1f} s")  # noqa: T201 (a figure to report)
    with TestClient(app, base_url="http://localhost") as browser:
        browser.post("/console/sign-in", data={"token": token})
        yield browser


@pytest.mark.parametrize(
    "path",
    [
        "/console",
        "/console?category=c4&tenant=tenant-3",
        "/console?show=all&request=0000000000000000000000000000",
        f"/console/image/{50_000:032x}/0",
        "/console/overview",
        "/console/thresholds?category=c4",
        "/console/changes",
    ],
)
def test_open(benchmark, client, path):
    answer = benchmark.pedantic(client.get, args=(path,), rounds=5)
    assert answer.status_code == 200
