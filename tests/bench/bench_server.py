"""Put load on the guard service: many generations at once on loopback, with a backend of scripted answers.

Every generation has 25 steps, which take as long as on a GPU, and sends a query at every due step. The bench reports
the overhead of a query: the time that the client measures, minus the time that the model takes. Run it as a script::

    python -m tests.bench.bench_server --sessions 200 --step-seconds 0.4 --workers 2
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import re
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from PIL import Image, ImageFilter

from dnp_guard.hosts.protocol import Host, Open, PreviewPicture, QueryMessage
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from dnp_guard.server.tokens import ANYONE
from tests.server.processes import serving

STEPS = 25


@dataclass
class Load:
    """The measurements of one load test."""

    overheads: list[float] = field(default_factory=list)
    """Per query, the milliseconds that the client measured, minus those of the model."""
    inside: list[float] = field(default_factory=list)
    """Per query, the milliseconds that the service measured, minus those of the model."""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    """Seconds of processor time that the service spent on all requests."""

    def __str__(self) -> str:
        seen, inside = _quantiles(self.overheads), _quantiles(self.inside)
        return (
            f"{len(self.overheads)} queries in {self.seconds:.1f} s, {len(self.errors)} errors; overhead p50/p95/p99 "
            f"{seen} ms at the client, {inside} ms in the service, {self.cpu_s / len(self.overheads) * 1000:.1f} ms of "
            "processor time in the service"
        )


def _quantiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=100)
    return "/".join(f"{cuts[at]:.1f}" for at in (49, 94, 98))


def preview(side: int) -> str:
    """Return a JPEG as a data URL, whose file is about as large as that of a photograph."""
    noise = Image.effect_noise((side, side), 60).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def generation(client: httpx2.AsyncClient, load: Load, picture: str, step_s: float, start_s: float) -> None:
    """Send the requests of one generation, as an image generator does.

    Args:
        client: client of the service.
        load: takes the measurements.
        picture: data URL of the picture to send at every query.
        step_s: seconds per denoising step.
        start_s: seconds to wait before the start.
    """
    await asyncio.sleep(start_s)
    asked = {"protocol": 1, "host": {"name": "bench"}, "prompts": ["a lake"], "steps": STEPS, "images": 1}
    opened = await post(client, load, "/v1/sessions", asked)
    if opened is None:
        return
    path = f"/v1/sessions/{opened['session']}"
    for step in range(STEPS):
        if step in opened["due"]:
            query = {"step": step, "progress": step / STEPS, "images": [{"index": 0, "data": picture}]}
            await post(client, load, f"{path}/queries", query, timed=True)
        await asyncio.sleep(step_s)
    await post(client, load, f"{path}/final", {"images": [{"index": 0, "data": picture}]})


async def post(client: httpx2.AsyncClient, load: Load, path: str, body: object, *, timed: bool = False) -> dict | None:
    """Send a request and return its JSON answer; note an error, and the overhead if ``timed``."""
    content = json.dumps(body).encode()
    began = time.perf_counter()
    try:
        response = await client.post(path, content=content, headers={"content-type": "application/json"})
    except httpx2.HTTPError as error:
        load.errors.append(repr(error))
        return None
    took = (time.perf_counter() - began) * 1000
    if not response.is_success:
        load.errors.append(response.text)
        return None
    if timed:
        vlm, total = map(float, re.findall(r"dur=([\d.]+)", response.headers["server-timing"]))
        load.overheads.append(took - vlm)
        load.inside.append(total - vlm)
    return response.json()


async def drive(url: str, sessions: int, step_s: float, side: int) -> Load:
    """Run all generations, whose starts are spread over a quarter of the duration of one, and return measurements."""
    load, picture = Load(), preview(side)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    began = time.perf_counter()
    async with httpx2.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=60) as client:
        starts = random.Random(0)
        runs = (
            generation(client, load, picture, step_s, starts.uniform(0, STEPS * step_s / 4)) for _ in range(sessions)
        )
        await asyncio.gather(*runs)
    load.seconds = time.perf_counter() - began
    return load


def measure(sessions: int, step_s: float, workers: int, side: int) -> Load:
    """Start a service, run a load test against it, and return the measurements."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "looks.json"
        script.write_text(json.dumps([{"a star": 0.9}]))
        options = ("--policy", "glyphs", "--vlm", f"scripted:{script}", "--audit", Path(folder) / "audit.jsonl")
        most = ("--max-sessions", sessions, "--rate", 10_000_000, "--workers", workers)
        with serving(*options, *most) as running:
            running.wait_for(workers if workers > 1 else 0)
            asyncio.run(drive(running.url, 4, 0.01, side))  # imports at first use
            before = running.cpu_s
            load = asyncio.run(drive(running.url, sessions, step_s, side))
            load.cpu_s = running.cpu_s - before
            return load


def processor_time(sessions: int, side: int) -> str:
    """Measure the processor time of queries in the service without HTTP, and return a summary.

    Other programs on the machine do not lengthen it.
    """
    took = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "looks.json"
        script.write_text(json.dumps([{"a star": 0.9}]))
        service = create(
            Settings(
                policy="glyphs",
                vlm=f"scripted:{script}",
                audit=(f"{folder}/audit.jsonl",),
                store=f"sqlite:{folder}/sessions",
                limits={"sessions": sessions, "rate": 10_000_000},
            )
        ).state.service
        asked = Open(protocol=1, host=Host(name="bench"), steps=STEPS, images=1)
        begun = [service.open(ANYONE, asked) for _ in range(sessions)]
        shown = [PreviewPicture(index=0, data=preview(side))]
        for step in begun[0].due or ():
            for session in begun:
                before = time.process_time()
                service.query(ANYONE, session.session, QueryMessage(step=step, images=shown))
                took.append((time.process_time() - before) * 1000)
        service.close(keep=False)
    return f"{len(took)} queries of {sessions} sessions; processor time p50/p95/p99 {_quantiles(took)} ms"


def test_a_query_takes_processor_time(benchmark):
    summary = benchmark.pedantic(processor_time, args=(200, 512), rounds=1, iterations=1)
    benchmark.extra_info["processor_time"] = summary
    print(f"\n{summary}")  # noqa: T201 (the bench prints its measurement)


def test_200_sessions_at_once(benchmark):
    load = benchmark.pedantic(measure, args=(200, 0.4, 2, 512), rounds=1, iterations=1)
    benchmark.extra_info["load"] = str(load)
    print(f"\n{load}")  # noqa: T201 (the bench prints its measurement)
    assert not load.errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--step-seconds", type=float, default=0.4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=512, help="Width and height of a preview, in pixels.")
    given = parser.parse_args()
    print(processor_time(given.sessions, given.side))  # noqa: T201 (as above)
    print(measure(given.sessions, given.step_seconds, given.workers, given.side))  # noqa: T201 (as above)
