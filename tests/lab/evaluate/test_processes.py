import subprocess
import sys

import pytest

from dnp_guard.lab.evaluate.processes import in_processes
from dnp_guard.lab.evaluate.runner import World, here
from tests.lab.evaluate.test_runner import planned

pytestmark = pytest.mark.models


def test_two_processes_give_the_rows_of_one():
    plan = planned(n=3, size=2, steps=4)
    batches = plan.batches()
    spread = list(in_processes(plan, 2)(batches))
    alone = list(here(World(plan))(batches))
    assert [part.batch for part in spread] == batches
    assert [part.rows for part in spread] == [part.rows for part in alone]


def test_nothing_to_do_starts_no_process():
    assert list(in_processes(planned(n=1), 2)([])) == []


KILLED = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
from dnp_guard.lab.evaluate import processes
from tests.lab.evaluate.test_runner import planned

if __name__ == "__main__":
    plan = planned(n=6, size=2, steps=4, columns=("unguarded",))
    for measured in processes.in_processes(plan, 1)(plan.batches()):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_the_run_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    # The workers hold the pipe of standard output, which ends with the last worker.
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], check=False, capture_output=True, timeout=500
    )
    assert killed.returncode == -9, killed.stderr.decode()
