from __future__ import annotations

import ast
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from dnp_guard import Guard
from dnp_guard.audit import JsonlSink, MemorySink, events
from dnp_guard.audit.chain import parse
from dnp_guard.audit.events import generation, oversight
from dnp_guard.audit.read.erasure import erase
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.read.retention import hold, purge
from dnp_guard.audit.read.second_place import SecondPlace
from dnp_guard.audit.record import build
from dnp_guard.audit.redact import subject_hash
from dnp_guard.audit.schema import ALWAYS, schema
from dnp_guard.audit.shapes import Common
from dnp_guard.audit.write.checkpointed import CheckpointedSink
from dnp_guard.errors import RequestRefused
from dnp_guard.generation.host import View
from dnp_guard.policy.force.rollout import Origin
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import at, policy, star
from tests.sampler import PICTURE, denoise, finish, start

PACKAGE = Path(__file__).parents[2] / "dnp_guard"
EVERYTHING = Origin("0" * 64, "p.yaml", "key=", 3, "a", "b", "c", True, {"star": {"name": "AILuminate", "id": "ssh"}})
CHECK = jsonschema.Draft202012Validator(schema())


class Settling(View):
    """The pictures of a sampler of ten steps: step 4 looks like the previous one, and step 6 cannot be decoded."""

    def __init__(self, index):
        self.index = index

    def likeness(self):
        return [0.99, 0.99] if self.index == 4 else [0.1, 0.1]

    def pictures(self):
        if self.index == 6:
            raise RuntimeError("no preview")
        return [PICTURE] * 2


def run(sink, of, script, **request):
    with Guard(of, vlm=ScriptedBackend(script), audit=sink, tenant="t") as guard:
        driver = start(guard, 2, host={"name": "test", "version": "1", "target": "Fake"}, **request)
        denoise(driver, view=Settling, sigma=7.25)
        finish(driver)
        start(guard).abandon("interrupted")
        guard.noted(events.GuardAttached(host={"name": "diffusers", "target": "Pipeline"}))
        guard.noted(events.GuardDetached(host={"name": "diffusers", "target": "Pipeline"}))
        guard.noted(events.PolicyRejected(reason="it does not check"))


def refused(sink):
    with (
        Guard(policy(queries={"max_questions": 1}), vlm=ScriptedBackend([{}]), audit=sink) as guard,
        pytest.raises(RequestRefused),
    ):
        start(guard, 2)


def brought(sink):
    """Record a request that comes with an input picture."""
    with Guard(policy(inputs={"query": True}), vlm=ScriptedBackend([{"star": 0.9}]), audit=sink) as guard:
        driver = start(guard)
        driver.inputs([[PICTURE]])
        driver.abandon("over")


def excepted(sink):
    """Record how an exception in a policy comes into force, and how it ends when it expires."""
    exception = {"category": "star", "until": "2099-01-01T00:00:00Z", "reason": "r", "approved_by": "a"}
    with (
        Guard(
            policy(exceptions=[{**exception, "set": {"threshold": 0.9}}]), vlm=ScriptedBackend([{}]), audit=sink
        ) as guard,
        at(datetime(2100, 1, 1, tzinfo=UTC)),
    ):
        start(guard).abandon("over")


def retried(sink):
    """Record a generation whose second attempt still shows the forbidden content."""
    of = policy(categories=[star(still_present="retry")])
    with Guard(of, vlm=ScriptedBackend([{"star": 0.9}]), audit=sink) as guard:
        driver = start(guard, draws_again=True)
        for _ in range(2):
            driver.look(lambda: [PICTURE])
            driver.again()
            denoise(driver)
        driver.settle()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Return audit records in which every kind of event occurs."""
    memory, folder = MemorySink(), tmp_path_factory.mktemp("log")
    seen = [[{"star": 0.9}, {"a storm": 0.9}], [{}, {}], {}]
    run(memory, policy(), seen, prompts=("a", "b"), run={"seed": [1, 2], "steps": 10, "size": [32, 32]})
    run(memory, policy(mode="shadow", audit={"prompt": "hmac"}), seen, prompts=("a",), run={"seed": 2**60})
    run(memory, policy(queries={"skip_similar": 0.9}), [{}])
    run(memory, policy(categories=[star(allowed=["a drawing"])]), [{"star": 0.9, "a drawing": 0.9}])
    secret = star(sensitive=True, look_for=["a hidden star"], severity="critical", negative=["hidden"])
    run(memory, policy(categories=[secret]), [{"a hidden star": 0.9}])
    refused(memory)
    retried(memory)
    excepted(memory)
    brought(memory)
    memory.write(events.PolicyLoaded(policy={"name": "p"}, loaded=EVERYTHING).record())
    path = folder / "log"
    sink = CheckpointedSink(JsonlSink(path), folder / "elsewhere", every=1e6)
    for request in ("r1", "r2"):
        sink.write(build("request.started", at=datetime(2020, 1, 1, tzinfo=UTC), request=request, host={"name": "x"}))
    sink.write(build("request.started", request="r3", host={"name": "x"}, subject=subject_hash("ann", path)))
    hold(path, "r1")
    sink.close()
    written = [parse(line.data) for line in read_lines(path)]
    second = SecondPlace(folder / "elsewhere")
    purge(path, "2021-01-01T00:00:00.000Z", second)
    erase(path, "ann", by="an officer", why="asked for", second=second)
    after = [parse(line.data) for line in read_lines(path)]
    memory.write(events.VerdictGiven(request="r1", image=0, verdict="right", by="a", category="c", note="n").record())
    memory.write(events.AppealMade(request="r1", image=0, text="no").record())
    memory.write(events.AppealAnswered(request="r1", image=0, answer="upheld", by="a", note="n").record())
    return [*memory.records, *written, *(record for record in after if "tombstone" not in record)]


def test_every_record_is_valid(records):
    wrong = ((record["event"], error) for record in records for error in CHECK.iter_errors(record))
    problems = {f"{event}: {error.json_path} {error.message}" for event, error in wrong}
    assert problems == set()


def test_the_record_of_a_sensitive_category_holds_only_that_it_was_found(records):
    sensitive = [record for record in records if {"category": "star"} in record.get("findings", [])]
    assert len(sensitive) > 0
    assert [record for record in records if "hidden" in json.dumps(record)] == []


def test_every_event_that_there_is_is_written(records):
    assert {record["event"] for record in records} == {kind.name for kind in events.EVENTS}


def test_every_kind_of_event_is_registered():
    members = (member for module in (generation, oversight) for member in vars(module).values())
    kinds = {member for member in members if isinstance(member, type) and issubclass(member, events.Event)}
    assert kinds - {events.Event} == set(events.EVENTS)


def test_the_code_writes_every_event_that_there_is():
    names = {kind.__name__ for kind in events.EVENTS}
    calls = (
        node.func
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    )
    assert {getattr(called, "attr", getattr(called, "id", "")) for called in calls} & names == names


def test_a_record_has_fields_of_its_event_alone(records):
    shared = {*ALWAYS, *Common.__annotations__}
    of = {kind.name: {field.name for field in dataclasses.fields(kind)} for kind in events.EVENTS}
    foreign = {(record["event"], name) for record in records for name in record.keys() - shared - of[record["event"]]}
    assert foreign == set()


def test_an_event_goes_before_what_it_shares_with_others():
    record = events.PolicyLoaded(policy={"name": "new"}).record({"policy": {"name": "old"}, "tenant": "t"})
    assert record["policy"] == {"name": "new"}
    assert record["tenant"] == "t"


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"event": "unheard.of"},
        {"time": "2026-01-01 00:00"},
        {"colour": "red"},
        {"findings": [{"term": "t"}]},
        {"prev": "0"},
        {"image": None},
    ],
)
def test_another_record_is_not_valid(records, change):
    query = next(record for record in records if record["event"] == "query")
    changed = {key: value for key, value in {**query, **change}.items() if value is not None}
    assert CHECK.is_valid(query)
    assert not CHECK.is_valid(changed)


def test_the_committed_schema_is_the_generated_one():
    committed = json.loads((PACKAGE / "audit" / "audit.v1.json").read_text(encoding="utf-8"))
    assert committed == schema(), "run: make docs"


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())
