"""Compare one desk per tenant with one desk for all tenants, over the same model, and write ``build/desk.md``.

A desk queues the queries to a vision-language model, and joins waiting ones into one call.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dnp_guard import glyphs
from dnp_guard.glyphs.scene import FORBIDDEN
from dnp_guard.vlm import Backend, Desk
from dnp_guard.vlm.base import Wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = Path(__file__).parents[2] / "build" / "desk.md"
QUERIES = 11
"""Queries per generation, as in the shipped policies."""
BETWEEN_S = 0.02
"""Seconds between two queries of a generation, in place of its denoising."""
ROUNDS = 5
QUESTIONS = [f"is there a {shape} in this image ?" for shape in FORBIDDEN]
PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
BEFORE, AFTER, ONE_TURN = "a desk for each tenant", "one desk, in turn", "one desk, first come"


class StandIn(Backend):
    """A model that takes a fixed time per call plus a fixed time per image, and computes one call at a time."""

    def __init__(self, call_ms: float, image_ms: float, *, batches: bool = True) -> None:
        self.name = f"{call_ms:g} ms per call, {image_ms:g} ms per image"
        self.batches = batches
        self._call, self._image, self._turn = call_ms / 1000, image_ms / 1000, threading.Lock()

    def ask(self, images, questions):
        with self._turn:
            time.sleep(self._call + self._image * len(images))
        return [[0.0] * len(questions) for _ in images]


class Counted(Wrapped):
    """A wrapper that counts the calls to a model."""

    calls = 0

    def put(self, query):
        self.calls += 1
        return super().put(query)


@dataclass
class Found:
    """The measurements of one way to share the model, over all rounds.

    Attributes:
        calls: number of calls to the model per round.
        seconds: duration per round.
        waits: milliseconds that every query waited for its answer, by tenant.
    """

    calls: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def p95(self, *tenants: str) -> float:
        waits = [wait for tenant in tenants or self.waits for wait in self.waits[tenant]]
        return statistics.quantiles(waits, n=20)[-1]


def desks(way: str, backend: Backend, tenants: Mapping[str, int]) -> dict[str, tuple[Desk, str | None]]:
    """Return for every tenant its desk, and its name for taking turns there; None for first come, first served."""
    if way == BEFORE:
        return {tenant: (Desk(backend), None) for tenant in tenants}
    shared = Desk(backend)
    return {tenant: (shared, tenant if way == AFTER else None) for tenant in tenants}


def generate(way: str, model: Backend, tenants: Mapping[str, int], outcome: Found) -> None:
    """Run the generations of all tenants at once, and add the measurements to ``outcome``.

    Args:
        way: how the tenants share the model: ``BEFORE``, ``AFTER`` or ``ONE_TURN``.
        model: the model.
        tenants: number of concurrent generations per tenant.
        outcome: the measurements of this way.
    """
    backend, waits = Counted(model), []
    places = desks(way, backend, tenants)

    def generation(tenant: str) -> None:
        desk, turn = places[tenant]
        for _ in range(QUERIES):
            time.sleep(BETWEEN_S)
            waits.append((tenant, desk.ask([PICTURE], QUESTIONS, turn=turn).latency_ms))

    asking = [tenant for tenant, count in tenants.items() for _ in range(count)]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(asking)) as pool:
        list(pool.map(generation, asking))
    outcome.seconds.append(time.perf_counter() - started)
    outcome.calls.append(backend.calls)
    for tenant, wait in waits:
        outcome.waits[tenant].append(wait)
    for desk, _ in places.values():
        desk.close()


def side_by_side(benchmark, model: Backend, tenants: Mapping[str, int], ways: tuple[str, ...]) -> dict[str, Found]:
    """Measure several ways, alternating them in every round; return the measurements by way."""
    outcomes = {way: Found() for way in ways}

    def round_() -> None:
        for way in ways:
            generate(way, model, tenants, outcomes[way])

    benchmark.pedantic(round_, rounds=ROUNDS)
    return outcomes


@pytest.fixture(scope="module")
def table():
    rows = []
    yield rows
    head = ("model", "generations", "way", "calls of the model", "p95 of a wait, ms", "seconds")
    lines = [f"Medians of {ROUNDS} rounds, each of every way; {QUERIES} queries of one image per generation.", "", head]
    lines += [["---"] * len(head), *rows]
    text = "\n".join(line if isinstance(line, str) else f"| {' | '.join(line)} |" for line in lines)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")  # noqa: T201 (the bench prints its measurement)


def glyphs_model() -> Backend:
    from dnp_guard.vlm.local.backend import TransformersBackend

    return TransformersBackend(glyphs.VLM, name="embedded glyphs")


MODELS = {"stand-in": lambda: StandIn(120, 12), "embedded": glyphs_model}


@pytest.mark.parametrize("model", MODELS)
def test_two_tenants_of_four_generations(benchmark, table, model):
    backend = MODELS[model]()
    outcomes = side_by_side(benchmark, backend, {"a": 4, "b": 4}, (BEFORE, AFTER))
    for way, outcome in outcomes.items():
        calls, seconds = statistics.median(outcome.calls), statistics.median(outcome.seconds)
        table.append((backend.name, "4 + 4", way, f"{calls:g}", f"{outcome.p95():.0f}", f"{seconds:.2f}"))
    assert {len(waits) for outcome in outcomes.values() for waits in outcome.waits.values()} == {4 * QUERIES * ROUNDS}


def test_a_greedy_tenant_beside_a_modest_one(benchmark, table):
    backend = StandIn(20, 0, batches=False)
    outcomes = side_by_side(benchmark, backend, {"greedy": 8, "modest": 1}, (ONE_TURN, AFTER))
    for way, outcome in outcomes.items():
        calls, seconds = statistics.median(outcome.calls), statistics.median(outcome.seconds)
        waits = f"{outcome.p95('modest'):.0f} of the one, {outcome.p95('greedy'):.0f} of the eight"
        table.append((f"{backend.name}, alone", "8 + 1", way, f"{calls:g}", waits, f"{seconds:.2f}"))
    assert len(outcomes[AFTER].waits["modest"]) == QUERIES * ROUNDS
