"""A session skips queries that a probe finds unnecessary."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.generation.host import View
from dnp_guard.types import Outcome
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star
from tests.sampler import PICTURE, run


@dataclass(frozen=True)
class Probed(View):
    """The pictures of one step, with a probe's estimate per image of how probable a star is."""

    near: Sequence[float]

    def pictures(self):
        return [PICTURE] * len(self.near)

    def nearness(self):
        return [{"star": row, "bolt": 0.0, "secret": 0.0} for row in self.near]


@pytest.fixture
def probed(monkeypatch):
    """Return a function that runs a guarded sampler of ten steps with a probe; see its docstring."""

    def probed(near, script, *, skip=True, categories=None):
        """Run the sampler; return the records of its queries, and the outcomes.

        Args:
            near: returns the probe's estimates per image, given the index of a step.
            script: answers of the scripted backend, look by look.
            skip: whether the policy lets the probe skip queries.
            categories: categories of the policy; star and bolt by default.
        """
        sink = MemorySink()
        queries = {"steps": [0.2, 0.4, 0.6, 0.8]} | ({"skip_probe": {"max_miss": 0.01}} if skip else {})
        of = policy(queries=queries, categories=categories or [star(), bolt()])
        # The sampler is its own probe here.
        monkeypatch.setattr("dnp_guard.preview.probes.Probes.of", lambda *_, **__: None)
        guard = Guard(of, vlm=ScriptedBackend(script), audit=sink)
        outcomes = run(guard, len(near(0)), view=lambda index: Probed(near(index)))
        looks = [
            (record["event"], record.get("step"), record.get("reason"), record.get("probe"))
            for record in sink.records
            if record["event"].startswith("query")
        ]
        return looks, outcomes

    return probed


def always(*near):
    """Return a probe function that gives the same estimates, one per image, at all steps."""
    return lambda index: near


def only_at_first(index):
    """Estimate a star as certain at step 2, the first look, and as impossible at other steps: a probe function."""
    return [1.0 if index == 2 else 0.0]


def test_an_unlikely_image_is_skipped_with_its_score_recorded_until_the_final_look(probed):
    looks, outcomes = probed(always(0.25), [{}])
    skipped = [("query.skipped", step, "unlikely", 0.25) for step in (2, 4, 6, 8)]
    assert looks == [*skipped, ("query", None, None, None)]
    assert outcomes == (Outcome.CLEAN,)


def test_the_final_look_blocks_a_finding_that_the_probe_missed(probed):
    _, outcomes = probed(always(0.0), [{"star": 0.9}])
    assert outcomes == (Outcome.BLOCKED,)


def test_a_likely_image_is_queried(probed):
    looks, _ = probed(always(1.0), [{}])
    assert [event for event, *_ in looks] == ["query"] * 5


def test_only_the_likely_images_of_a_batch_are_queried(probed):
    looks, _ = probed(always(0.1, 1.5), [{}])
    assert looks[:2] == [("query.skipped", 2, "unlikely", 0.1), ("query", 2, None, None)]


def test_nothing_is_skipped_while_an_image_is_steered(probed):
    looks, _ = probed(only_at_first, [{"star": 0.9}, {"star": 0.9}, {}])
    assert [(event, step) for event, step, *_ in looks] == [
        ("query", 2),
        ("query", 4),
        ("query", 6),
        ("query.skipped", 8),
        ("query", None),
    ]


def test_nothing_is_skipped_after_a_miss(probed):
    looks, _ = probed(only_at_first, [{"error": "timeout"}, {}, {}])
    assert looks[0][:2] == ("query", 3)


def test_nothing_is_skipped_where_something_sensitive_is_due(probed):
    secret = {"id": "secret", "look_for": ["a secret"], "sensitive": True, "action": "block", "still_present": "block"}
    looks, _ = probed(always(0.0), [{}], categories=[star(), secret])
    assert {event for event, *_ in looks} == {"query"}


def test_a_policy_without_the_key_skips_nothing(probed):
    looks, _ = probed(always(0.0), [{}], skip=False)
    assert {event for event, *_ in looks} == {"query"}
