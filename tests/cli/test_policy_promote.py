from __future__ import annotations

import json

import pytest

from dnp_guard import Guard, cli
from dnp_guard.policy import load_policy
from dnp_guard.policy.rehearsal.promotion import wilson
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.sampler import denoise, finish, start

POLICY = """\
format: 1
name: kids
mode: shadow
categories:
  - {id: star, look_for: [a star], negative: [star], still_present: blur}
  - {id: bolt, look_for: [a bolt], negative: [bolt]}
"""


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run(["policy", *map(str, args)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def rehearsal(tmp_path):
    """Return a policy in shadow, and the log of its findings for two tenants."""
    path, log = tmp_path / "kids.yaml", tmp_path / "audit.jsonl"
    path.write_text(POLICY)
    for tenant, script in (
        ("games", [{"star": 0.9}]),
        ("games", [{"bolt": 0.9}, {}]),
        ("games", [{}]),
        ("school", [{"star": 0.9, "bolt": 0.9}]),
    ):
        with Guard(path, vlm=ScriptedBackend(script), audit=log, tenant=tenant) as guard:
            driver = start(guard)
            denoise(driver)
            finish(driver)
    return path, log


def test_promote_says_by_tenant_and_category_what_enforcing_would_have_done(run, rehearsal):
    path, log = rehearsal
    document = json.loads(run("promote", path, "--audit", log, "--json")[1])
    shares = [
        tuple(share[key] for key in ("tenant", "category", "outcome", "count", "images"))
        for share in document["shares"]
    ]
    assert shares == [
        ("games", "", "blurred", 1, 3),
        ("games", "", "steered", 1, 3),
        ("games", "bolt", "steered", 1, 3),
        ("games", "star", "blurred", 1, 3),
        ("school", "", "blocked", 1, 1),
        ("school", "bolt", "blocked", 1, 1),
        ("school", "star", "blurred", 1, 1),
    ]
    assert document["shares"][0]["low"] == pytest.approx(wilson(1, 3)[0])


def test_promote_writes_the_policy_enforced_and_nothing_else_of_it_changed(run, rehearsal, tmp_path):
    path, log = rehearsal
    code, out, _ = run("promote", path, "--audit", log, "--out", tmp_path / "enforced.yaml")
    assert code == 0
    assert "approve it" in out
    assert (tmp_path / "enforced.yaml").read_text() == POLICY.replace("shadow", "enforce")
    assert load_policy(tmp_path / "enforced.yaml").mode == "enforce"


def test_promote_of_a_policy_that_is_enforced_already_is_refused(run, rehearsal, tmp_path):
    path, log = rehearsal
    path.write_text(POLICY.replace("shadow", "enforce"))
    code, _, err = run("promote", path, "--audit", log)
    assert code == 2
    assert "no part of the policy is in shadow" in err


@pytest.mark.parametrize(("count", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (0, 0, 0, 1)])
def test_an_interval_is_the_one_of_wilson(count, of, low, high):
    assert wilson(count, of) == pytest.approx((low, high), abs=1e-4)
