"""The metrics page keeps the totals of killed workers, in prometheus_client's multiprocess mode."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from dnp_guard.telemetry.ended_workers import ended_merged

PROGRAM = """
import os
from dnp_guard.telemetry import Metrics

metrics = Metrics()
metrics.policy_info("p", "1", "d", "enforce")
metrics.negative("p", "star")
metrics.query_seconds(0.02)
metrics.query_seconds(2)
metrics.checkpoint(os.getpid())
os.kill(os.getpid(), 9)
"""
KILLED = 4
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no workers to share a folder")


def killed(folder):
    """Run a worker process that counts metrics in a folder, and is then killed."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=False)


def shown(folder):
    """Return the samples of the metrics page by name and labels."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Return the metrics folder of several killed workers, and its samples before and after they are merged."""
    folder = tmp_path_factory.mktemp("multiprocess")
    for _ in range(KILLED):
        killed(folder)
    before = shown(folder)
    with ended_merged(folder):
        return folder, before, shown(folder)


def test_gauges_of_living_workers_go_when_the_workers_end(left):
    _, before, after = left
    gone = {name for name, *_ in before.keys() - after.keys()}
    assert gone == {"dnp_guard_policy_info"}


def test_every_total_stays(left):
    _, before, after = left
    assert after == {key: before[key] for key in after}
    assert after["dnp_guard_query_seconds_count",] == 2 * KILLED


def test_there_is_one_file_a_kind(left):
    folder, _, _ = left
    assert sorted(path.name for path in folder.iterdir()) == ["counter_0.db", "gauge_max_0.db", "histogram_0.db"]


def test_one_more_is_added(left, tmp_path):
    folder, _, after = left
    (tmp_path / "counter_0.db").write_bytes((folder / "counter_0.db").read_bytes())
    killed(tmp_path)
    with ended_merged(tmp_path):
        counted = shown(tmp_path)
    key = next(key for key in after if key[0] == "dnp_guard_negatives_injected_total")
    assert counted[key] == after[key] + 1


@pytest.mark.parametrize("taken_in", [False, True], ids=["before it was taken in", "after it was taken in"])
def test_a_kill_at_the_merging_loses_and_doubles_nothing(left, tmp_path, taken_in):
    folder, _, after = left
    total = (folder / "counter_0.db").read_bytes()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"counter_0.db.{ended.pid}").write_bytes(total)
    if not taken_in:
        (tmp_path / f"counter_{ended.pid}.db").write_bytes(total)
    with ended_merged(tmp_path):
        assert shown(tmp_path) == {key: value for key, value in after.items() if key[0].endswith("_total")}
    assert [path.name for path in tmp_path.iterdir()] == ["counter_0.db"]


def test_a_file_that_was_killed_at_its_beginning_stops_no_page(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"counter_{ended.pid}.db").touch()
    with ended_merged(tmp_path):
        assert shown(tmp_path) == {}


def test_the_samples_of_a_living_worker_stay(tmp_path):
    (tmp_path / f"gauge_livemax_{os.getpid()}.db").touch()
    with ended_merged(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
