"""Compare two ways to query the embedded vision-language model, and write ``build/asking.md``.

The VL-DNP paper has the model list what it sees in free text. The guard reads the probabilities of yes and no from a
single forward pass.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from dnp_guard import glyphs
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.glyphs.scene import FORBIDDEN
from dnp_guard.lab.evaluate.free_text import MOST_TOKENS, FreeTextBackend
from dnp_guard.lab.evaluate.held_out import held_out
from dnp_guard.lab.evaluate.intervals import auc
from dnp_guard.vlm import Desk
from dnp_guard.vlm.local.backend import TransformersBackend

TABLE = Path(__file__).parents[2] / "build" / "asking.md"
PICTURES = 400
COUNTS = (1, 4, 16)
QUESTIONS = [f"is there a {shape} in this image ?" for shape in FORBIDDEN]


class Unstopped(FreeTextBackend):
    """The paper's free-text query with a model that always writes the most tokens allowed, as a talkative one does."""

    def say(self, image, question, most_tokens):
        self.reader.model.generation_config.min_new_tokens = most_tokens
        return super().say(image, question, most_tokens)


WAYS = {
    "free text, the model stops by itself": (FreeTextBackend, FORBIDDEN),
    f"free text, all {MOST_TOKENS} tokens": (Unstopped, FORBIDDEN),
    "one forward pass": (TransformersBackend, QUESTIONS),
}


@pytest.fixture(scope="module")
def held():
    torch.set_num_threads(1)
    return held_out(load_pipeline(), PICTURES, seed=20261121)


@pytest.fixture(scope="module")
def backends():
    return {name: kind(glyphs.VLM) for name, (kind, _) in WAYS.items()}


@pytest.fixture(scope="module")
def table(held, backends):
    times = {}
    yield times
    stopped = {name: backends[name] for name in times if backends[name].__class__ is not Unstopped}
    scores = {name: detection(backend, WAYS[name][1], held) for name, backend in stopped.items()}
    lines = [
        f"Median time of a query of {len(FORBIDDEN)} categories, and AUC on {len(held)} held-out x̂0 pictures.",
        "",
        "| way | " + " | ".join(f"{count}, ms" for count in COUNTS) + " | AUC " + " | AUC ".join(FORBIDDEN) + " |",
        "|---" * (1 + len(COUNTS) + len(FORBIDDEN)) + "|",
    ]
    best = times.get("one forward pass", {})
    for name, medians in times.items():
        cells = [_cell(medians.get(count), best.get(count)) for count in COUNTS]
        aucs = [f"{score:.3f}" for score in scores.get(name, ())] or ["–"] * len(FORBIDDEN)
        lines.append(f"| {name} | {' | '.join([*cells, *aucs])} |")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(seconds, best):
    if seconds is None or best is None:
        return "–"
    return f"{seconds * 1000:.1f} ({seconds / best:.1f}x)"


def detection(backend, asked, held):
    rows = backend.ask([example.image for example in held], asked)
    return [
        auc(
            [row[k] for row, example in zip(rows, held, strict=True) if example.scene.shows(shape)],
            [row[k] for row, example in zip(rows, held, strict=True) if not example.scene.shows(shape)],
        )
        for k, shape in enumerate(FORBIDDEN)
    ]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_query_is_answered(benchmark, held, backends, table, way, count):
    benchmark.group = f"a query about {count} images"
    pictures = [example.image for example in held[:count]]
    asked = WAYS[way][1]
    answers = benchmark.pedantic(backends[way].ask, args=(pictures, asked), rounds=9, warmup_rounds=1)
    assert len(answers) == count
    if benchmark.stats is not None:
        table.setdefault(way, {})[count] = benchmark.stats.stats.median


GENERATIONS = 4


class Alone(TransformersBackend):
    batches = False


@pytest.mark.benchmark(group=f"{GENERATIONS} generations that ask at once, 5 queries of one image each")
@pytest.mark.parametrize("kind", [Alone, TransformersBackend], ids=["one call each", "sharing calls"])
def test_generations_ask_at_once(benchmark, held, kind):
    desk = Desk(kind(glyphs.VLM))

    def generation(number):
        return [desk.ask([held[number].image], QUESTIONS, deadline_ms=60_000) for _ in range(5)]

    with ThreadPoolExecutor(GENERATIONS) as pool:
        answers = benchmark.pedantic(lambda: list(pool.map(generation, range(GENERATIONS))), rounds=9, warmup_rounds=1)
    desk.close()
    assert len(answers) == GENERATIONS
