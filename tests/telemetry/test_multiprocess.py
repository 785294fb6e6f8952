"""Several worker processes share one /metrics page, in prometheus_client's multiprocess mode."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from pathlib import Path

WORKER = """
import sys
from dnp_guard.telemetry import Metrics

metrics = Metrics()
metrics.policy_info("default", "0.9.0", "old", "enforce")
metrics.policy_info("default", "1.0.0", sys.argv[1], "enforce")
for _ in range(3):
    metrics.negative("default", "nudity")
metrics.query_seconds(0.02)
metrics.checkpoint(float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read()
"""

PAGE = """
import sys
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples on the metrics page of two living workers, by name and labels."""
    folder: Path = tmp_path_factory.mktemp("multiprocess")
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, digest, time],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for digest, time in (("abc", "100"), ("xyz", "200"))
    ]
    ready = [worker.stdout.readline() for worker in workers if worker.stdout is not None]
    assert ready == ["ready\n"] * 2
    page = subprocess.run([sys.executable, "-c", PAGE], env=environment, check=True, capture_output=True, text=True)
    for worker in workers:
        worker.communicate()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.stdout)
        for sample in family.samples
    }


def test_counters_and_histograms_are_summed(samples) -> None:  # type: ignore[no-untyped-def]
    injected = samples["dnp_guard_negatives_injected_total", (("category", "nudity"), ("policy", "default"))]
    assert injected == 6
    assert samples["dnp_guard_query_seconds_count", ()] == 2


def test_workers_on_differing_digests_show(samples) -> None:  # type: ignore[no-untyped-def]
    shown = {
        dict(labels)["digest"]: value for (name, labels), value in samples.items() if name == "dnp_guard_policy_info"
    }
    assert shown == {"old": 0, "abc": 1, "xyz": 1}


def test_the_latest_checkpoint_of_any_worker_shows(samples) -> None:  # type: ignore[no-untyped-def]
    assert samples["dnp_guard_checkpoint_timestamp_seconds", ()] == 200
