"""When a session skips what a probe says is not worth a question."""

import pytest
from PIL import Image

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.generation.session import Request
from dnp_guard.types import Outcome, Step
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star

PICTURE = Image.new("RGB", (32, 32))
STEPS = 10


class Host:
    """A sampler of ten steps with a probe that says the same at every step, or what a list says in turn."""

    def __init__(self, *near):
        self.near, self.applied = list(near), []

    def similarity(self, step):
        return []

    def previews(self, step):
        return [PICTURE] * len(self.near[0])

    def apply(self, negatives):
        self.applied.append([negative is not None for negative in negatives])

    def nearness(self, step):
        rows = self.near.pop(0) if len(self.near) > 1 else self.near[0]
        return [{"star": row, "bolt": 0.0, "secret": 0.0} for row in rows]


@pytest.fixture
def run(monkeypatch):
    """Runs a guard over a host; the records of its looks, and the outcomes."""

    def denoise(host, script, *, skip=True, categories=None, images=1):
        sink = MemorySink()
        queries = {"steps": [0.2, 0.4, 0.6, 0.8]} | ({"skip_probe": {"max_miss": 0.01}} if skip else {})
        of = policy(queries=queries, categories=categories or [star(), bolt()])
        monkeypatch.setattr(
            "dnp_guard.preview.probes.Probes.of", lambda *_, **__: None
        )  # the host here is its own probe
        guard = Guard(of, vlm=ScriptedBackend(script), audit=sink)
        session = guard.start(Request(images, {"name": "test"}))
        for index in range(STEPS):
            if session.due(index, STEPS):
                session.step(Step(index, STEPS, 1.0, None), host)
        outcomes = session.final(lambda: [PICTURE] * images)
        looks = [
            (record["event"], record.get("step"), record.get("reason"), record.get("probe"))
            for record in sink.records
            if record["event"].startswith("query")
        ]
        return looks, outcomes

    return denoise


def test_what_is_unlikely_is_skipped_and_its_score_recorded_and_the_final_look_asks(run):
    looks, outcomes = run(Host([0.25]), [{}])
    skipped = [("query.skipped", step, "unlikely", 0.25) for step in (2, 4, 6, 8)]
    assert looks == [*skipped, ("query", None, None, None)]
    assert outcomes == (Outcome.CLEAN,)


def test_what_the_probe_missed_is_blocked_by_the_final_look(run):
    _, outcomes = run(Host([0.0]), [{"star": 0.9}])
    assert outcomes == (Outcome.BLOCKED,)


def test_what_is_likely_is_asked_about(run):
    looks, _ = run(Host([1.0]), [{}])
    assert [event for event, *_ in looks] == ["query"] * 5


def test_of_a_batch_only_the_likely_images_are_asked_about(run):
    looks, _ = run(Host([0.1, 1.5]), [{}], images=2)
    assert looks[:2] == [("query.skipped", 2, "unlikely", 0.1), ("query", 2, None, None)]


def test_nothing_is_skipped_while_an_image_is_steered(run):
    looks, _ = run(Host([1.0], [0.0]), [{"star": 0.9}, {"star": 0.9}, {}])
    assert [(event, step) for event, step, *_ in looks] == [
        ("query", 2),
        ("query", 4),
        ("query", 6),
        ("query.skipped", 8),
        ("query", None),
    ]


def test_nothing_is_skipped_after_a_miss(run):
    looks, _ = run(Host([1.0], [0.0]), [{"error": "timeout"}, {}, {}])
    assert looks[0][:2] == ("query", 3)


def test_nothing_is_skipped_where_something_sensitive_is_due(run):
    secret = {"id": "secret", "look_for": ["a secret"], "sensitive": True, "action": "block", "still_present": "block"}
    looks, _ = run(Host([0.0]), [{}], categories=[star(), secret])
    assert {event for event, *_ in looks} == {"query"}


def test_a_policy_without_the_key_skips_nothing(run):
    looks, _ = run(Host([0.0]), [{}], skip=False)
    assert {event for event, *_ in looks} == {"query"}
