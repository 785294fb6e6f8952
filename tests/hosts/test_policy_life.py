"""Policies are edited and reloaded while the embedded model generates images."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from dnp_guard import Guard, Outcome, PolicyError, load_policy
from dnp_guard.audit import MemorySink
from dnp_guard.generation import override
from dnp_guard.policy import Store
from dnp_guard.policy.force.signing import new_key, sign
from dnp_guard.policy.force.store import as_store
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.conftest import draw
from tests.policies import bolt, policy, star

pytestmark = pytest.mark.models

POLICY = """\
format: 1
name: p
revision: "{edit}"
queries: {{steps: [0.4, 0.9]}}
guidance: {{scale: 6}}
categories: [{{id: star, look_for: [a star], negative: [star], threshold: {threshold}}}]
"""
BROKEN = ["format: 1\nname: p\n", "categories: [{id: star, negative: [st", "treshold: 0.5", "\x00", "", "a: &a *a"]
TESTS = """\
format: 1
policy: ../p.yaml
cases: [{name: A sure star is steered away, looks: [{a star: 0.9}], expect: {decision: steered}}]
"""
EDITS = 100


@pytest.fixture
def path(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "p.test.yaml").write_text(TESTS)
    path = tmp_path / "p.yaml"
    path.write_text(good(0))
    return path


def good(edit):
    return POLICY.format(edit=edit, threshold=round(0.5 - edit / 1000, 3))


class Edits:
    """A backend during whose queries another thread edits the guard's policy file and reloads it.

    Every third edit makes the file invalid.

    Attributes:
        done: number of edits.
        broken: number of invalid edits.
        digests: digests of all valid policies.
    """

    def __init__(self, path, editor):
        self.path, self.editor = path, editor
        self.guard, self.done, self.broken = None, 0, 0
        self.digests = {load_policy(path).digest}

    def ask(self, images, questions):
        if self.guard is not None and self.done < EDITS:
            self.editor.submit(self.edit).result()
        return [[0.9 if self.done % 2 else 0.1] * len(questions) for _ in images]

    def edit(self):
        self.done += 1
        breaks = self.done % 3 == 0
        self.path.write_text(BROKEN[self.done % len(BROKEN)] if breaks else good(self.done))
        if breaks:
            self.broken += 1
        else:
            self.digests.add(load_policy(self.path).digest)
        assert self.guard.reload() is not breaks


def test_a_hundred_edits_while_images_are_made_fail_none_and_never_half_load(pipe, path):
    sink = MemorySink()
    with ThreadPoolExecutor(1) as editor:
        vlm = Edits(path, editor)
        with Guard(path, vlm=vlm, audit=sink) as guard, guard.attached(pipe):
            vlm.guard = guard
            outcomes = []
            while vlm.done < EDITS:
                draw(pipe, ["a red circle at night"], num_inference_steps=3)
                outcomes.append(guard.last.decision)
                assert guard.last.degraded == ()
            of_request = defaultdict(set)
            for record in sink.records:
                of_request[record.get("request")].add(record["policy"]["digest"])
            counted = guard.metrics.registry.get_sample_value("dnp_guard_policy_reloads_total", {"result": "rejected"})
    assert Outcome.FAILED_CLOSED not in outcomes
    assert {record["policy"]["digest"] for record in sink.records} <= vlm.digests
    assert {len(digests) for request, digests in of_request.items() if request is not None} == {1}
    rejected = [record for record in sink.records if record["event"] == "policy.rejected"]
    assert len(rejected) == vlm.broken == counted == EDITS // 3


def test_a_guard_of_a_store_watches_for_its_tenant(pipe):
    store = Store((policy(), policy(name="acme", select={"tenants": ["acme"]}, categories=[star(threshold=0.2)])))
    seen = [{"star": 0.3}]
    for tenant, outcome in (("acme", "blocked"), ("other", "clean")):
        with Guard(store, vlm=ScriptedBackend(seen), tenant=tenant) as guard, guard.attached(pipe):
            draw(pipe)
            assert guard.last.decision == outcome


def test_a_block_of_calls_may_ask_for_more_and_not_for_less(pipe):
    mild, harsh = (policy(categories=[star(threshold=threshold), bolt()]) for threshold in (0.9, 0.2))
    with Guard(policy(), vlm=ScriptedBackend([{"star": 0.3}])) as guard, guard.attached(pipe):
        with guard.tightened(harsh):
            draw(pipe)
            assert guard.last.decision == "blocked"
        with guard.tightened(mild):
            draw(pipe)
            assert guard.last.decision == "clean"
            assert guard.policy.category("star").threshold == 0.5


def test_under_an_override_an_outage_lets_images_pass_and_is_recorded(pipe, tmp_path, monkeypatch):
    file = tmp_path / "override.json"
    monkeypatch.setenv("DNP_GUARD_OVERRIDE", str(file))
    sink = MemorySink()
    with Guard(policy(), vlm=ScriptedBackend([{"error": "error"}]), audit=sink) as guard, guard.attached(pipe):
        draw(pipe)
        assert guard.last.decision == "failed_closed"
        until = datetime.now(UTC) + timedelta(minutes=30)
        override.write(override.Override("open", until, "A. Person", "The model is down."), file)
        draw(pipe)
        assert guard.last.decision == "failed_open"
        file.unlink()
        draw(pipe)
        assert guard.last.decision == "failed_closed"
    reasons = [record["reason"] for record in sink.records if record["event"] == "override"]
    assert [reason.partition(" until")[0] for reason in reasons] == ["on_failure open", "ended: on_failure open"]


class TestSigned:
    @pytest.fixture
    def keys(self):
        return new_key()

    def issue(self, path, private, serial):
        sign(path, as_store(path), private, serial=serial, expires=datetime(2100, 1, 1, tzinfo=UTC))

    def test_an_unsigned_policy_is_refused_when_a_guard_is_made(self, path, keys):
        with pytest.raises(PolicyError, match="no signature"):
            Guard(path, vlm=ScriptedBackend({}), require_signature=keys[1])

    def test_a_signed_change_is_taken_and_an_unsigned_or_older_one_is_not(self, path, keys):
        private, public = keys
        self.issue(path, private, 1)
        with Guard(path, vlm=ScriptedBackend({}), require_signature=public) as guard:
            path.write_text(good(1))
            assert not guard.reload()
            self.issue(path, private, 2)
            assert guard.reload()
            path.write_text(good(2))
            self.issue(path, private, 1)
            assert not guard.reload()
            assert guard.policy.revision == "1"
