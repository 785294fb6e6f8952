"""A process may be killed while it generates an image again."""

from __future__ import annotations

import subprocess
import sys

from dnp_guard.audit.chain import parse
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.read.show import UNFINISHED, generations
from dnp_guard.audit.read.verify import verify

KILLED = """
import os, signal, sys
from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import policy, star
from tests.sampler import PICTURE, denoise, start

guard = Guard(policy(categories=[star(still_present="retry")]), vlm=ScriptedBackend([{"star": 0.9}]), audit=sys.argv[1])
driver = start(guard, draws_again=True)
denoise(driver)
driver.look(lambda: [PICTURE])
driver.again()
denoise(driver, steps=5)
guard.settle()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_in_a_retry_leaves_a_record_that_verifies_and_says_that_nothing_was_delivered(tmp_path):
    log = tmp_path / "audit.jsonl"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(log)], check=False)
    assert killed.returncode == -9
    assert verify(log).ok
    records = [parse(line.data) for line in read_lines(log)]
    retried = [record["event"] for record in records].index("request.retried")
    assert any(record["event"] == "query" and record["attempt"] == 2 for record in records[retried:])
    assert [row.decision for row in generations(records)] == [UNFINISHED]
