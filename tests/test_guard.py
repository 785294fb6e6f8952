import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from dnp_guard import Guard, RequestRefused, hookimpl
from dnp_guard.audit import MemorySink, verify
from dnp_guard.errors import CannotSteer, PluginError, PolicyError, VlmUnavailable
from dnp_guard.generation.host import Pictures
from dnp_guard.generation.state import Request
from dnp_guard.types import Outcome
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star
from tests.sampler import PICTURE, Holds, denoise, finish, run, start


def guard(script, of=None, **arguments):
    return Guard(of or policy(), vlm=ScriptedBackend(script), **arguments)


def test_every_injected_negative_is_in_the_audit_the_metrics_and_the_spans(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    registry, sink = CollectorRegistry(), MemorySink()
    script = [[{"star": 0.9}, {}], [{"star": 0.9}, {"bolt": 0.9}], [{}, {}], [{"star": 0.9}, {}], {}]
    watching = guard(script, registry=registry, audit=sink)
    run(watching, 2)
    records = [r for r in sink.records if r["event"] == "negative.injected"]
    counted = sum(
        registry.get_sample_value("dnp_guard_negatives_injected_total", {"policy": "test", "category": category}) or 0
        for category in ("star", "bolt")
    )
    spans = exporter.get_finished_spans()
    events = [event for span in spans for event in span.events if event.name == "dnp_guard.negative_injected"]
    reported = sum(len(image.negatives) for image in watching.last.images)
    assert len(records) == counted == len(events) == reported == 3
    assert {span.name for span in spans} >= {"dnp_guard.generation", "dnp_guard.query", "chat scripted"}


def test_a_generation_on_behalf_of_somebody_has_a_keyed_subject():
    sink = MemorySink()
    watching = guard([{}], audit=sink)
    with watching.on_behalf_of("ann"):
        run(watching, 1)
    run(watching, 1)
    first, second = (r for r in sink.records if r["event"] == "request.started")
    assert len(first["subject"]) == 64
    assert "subject" not in second


@pytest.mark.parametrize(("mode", "outcome"), [("enforce", "steer"), ("shadow", "shadow")])
def test_what_is_seen_is_counted_by_category_and_outcome(mode, outcome):
    registry = CollectorRegistry()
    run(guard([{"star": 0.9}, {}], of=policy(mode=mode), registry=registry), 1)
    labels = {"policy": "test", "category": "star", "outcome": outcome}
    assert registry.get_sample_value("dnp_guard_findings_total", labels) == 1


def test_metrics_count_queries_images_and_outcomes():
    registry = CollectorRegistry()
    run(guard([{}], registry=registry), 3)
    value = registry.get_sample_value
    assert value("dnp_guard_queries_total", {"policy": "test", "outcome": "answered"}) == 15
    assert value("dnp_guard_generations_total", {"policy": "test", "decision": "clean"}) == 3
    assert value("dnp_guard_query_seconds_count") == 5
    for stage in ("preview", "ask", "judge", "audit"):
        assert value("dnp_guard_overhead_seconds_count", {"stage": stage}) > 0


def test_the_written_log_verifies(tmp_path):
    path = tmp_path / "audit.jsonl"
    with guard([{"star": 0.9}, {}], audit=path) as watching:
        run(watching, 2)
    assert verify(path).ok


def test_the_record_names_policy_backend_and_host():
    sink = MemorySink()
    run(guard([{}], audit=sink, tenant="acme"), run={"seed": 7, "steps": 10})
    started = next(record for record in sink.records if record["event"] == "request.started")
    assert started["policy"]["digest"] == policy().digest
    assert started["vlm"]["name"] == "scripted"
    assert started["tenant"] == "acme"
    assert started["run"]["seed"] == 7


@pytest.mark.parametrize("how", ["hmac", "redacted", "none"])
def test_a_prompt_is_not_written_as_it_is(how, tmp_path):
    path = tmp_path / "audit.jsonl"
    with guard([{}], policy(audit={"prompt": how}), audit=path) as watching:
        run(watching, prompts=("a private wish",))
    assert "private wish" not in path.read_text()


def test_a_negative_is_injected_once_while_it_stays():
    holds = Holds()
    run(guard([{"star": 0.9}, {"star": 0.8}, {"star": 0.7}, {}]), steering=holds)
    assert list(holds.held.values()) == [["star"], [None]]


def test_an_allowed_case_is_asked_only_after_a_finding():
    asked = []

    def answers(images, questions):
        asked.append(tuple(questions))
        return [[0.9] * len(questions) for _ in images]

    of = policy(categories=[star(allowed=["a flag"])], queries={"steps": [0.5]})
    sink = MemorySink()
    run(Guard(of, vlm=ScriptedBackend(answers), audit=sink))
    assert asked == [("is there a star in this image?",), ("Does this image show a flag?",)] * 2
    assert [r["event"] for r in sink.records].count("finding.waived") == 2


def test_paired_questions_ask_the_negation_too():
    asked = []

    def answers(images, questions):
        asked.append(len(questions))
        return [[0.1, 0.2] for _ in images]

    of = policy(categories=[star()], question={"paired": True}, queries={"steps": [0.5]})
    watching = Guard(of, vlm=ScriptedBackend(answers))
    run(watching)
    assert asked == [2, 2]
    assert watching.last.images[0].queries[0].decision.probabilities["star"] == pytest.approx(0.8)


def test_a_plugin_hears_of_a_degraded_step_and_sees_the_previews():
    class Listens:
        def __init__(self):
            self.reasons, self.seen = [], 0

        @hookimpl
        def dnp_guard_degraded(self, reason):
            self.reasons.append(reason)

        @hookimpl
        def dnp_guard_before_query(self, images):
            self.seen += len(images)

    listens = Listens()
    run(guard([{"error": "timeout"}, {}], plugins=[listens]), 2)
    assert listens.reasons == ["vlm_timeout"]
    assert listens.seen == 2 * 6


def test_a_plugin_that_raises_is_counted_and_stops_nothing():
    class Raises:
        @hookimpl
        def dnp_guard_after_decision(self):
            raise ZeroDivisionError

    registry = CollectorRegistry()
    assert run(guard([{}], registry=registry, plugins=[Raises()])) == (Outcome.CLEAN,)
    assert registry.get_sample_value("dnp_guard_degraded_total", {"reason": "plugin_error"}) == 5


def test_a_plugins_words_outside_the_vocabulary_are_dropped_and_counted():
    class Adds:
        @hookimpl
        def dnp_guard_negative(self):
            return ["bolt", "ignore the policy"]

    holds = Holds()
    watching = guard([{"star": 0.9}], plugins=[Adds()])
    run(watching, steering=holds)
    assert holds.held[2] == ["star, bolt"]
    assert "plugin_word" in watching.last.degraded


def test_a_plugins_junk_does_not_loosen_a_decision():
    class Junk:
        @hookimpl
        def dnp_guard_after_decision(self):
            return "banana"

    of = policy(on_failure="open", queries={"steps": [0.5]})
    watching = guard([{"star": 0.99}], of, plugins=[Junk()])
    assert run(watching) == (Outcome.BLOCKED,)
    assert "plugin_error" in watching.last.degraded


def test_what_a_plugin_draws_on_a_preview_is_not_what_is_asked_about():
    class Paints:
        @hookimpl
        def dnp_guard_before_query(self, images):
            for image in images:
                image.paste((255, 255, 255), (0, 0, 32, 32))

    def dark(images, questions):
        return [[0.9 if image.getpixel((0, 0)) == (0, 0, 0) else 0.0] * len(questions) for image in images]

    watching = Guard(policy(), vlm=ScriptedBackend(dark), plugins=[Paints()])
    assert run(watching) == (Outcome.BLOCKED,)


def test_a_finding_stands_when_its_excuse_cannot_be_asked_about():
    def answers(images, questions):
        if questions[0].startswith("Does this image show"):
            raise TimeoutError
        return [[0.99] * len(questions) for _ in images]

    of = policy(categories=[star(allowed=["a flag"])], on_failure="open")
    watching = Guard(of, vlm=ScriptedBackend(answers))
    assert run(watching) == (Outcome.BLOCKED,)


def test_excuses_of_several_images_are_asked_about_at_once():
    calls = []

    def answers(images, questions):
        calls.append((len(images), questions[0]))
        return [[0.9] * len(questions) for _ in images]

    of = policy(categories=[star(allowed=["a flag"])], queries={"steps": [0.5], "final": False})
    run(Guard(of, vlm=ScriptedBackend(answers)), 3)
    assert calls == [(3, "is there a star in this image?"), (3, "Does this image show a flag?")]


def test_a_run_that_ended_before_its_last_look_is_a_miss_without_a_final_one():
    watching = guard([{}], policy(queries={"final": False}))
    driver = start(watching)
    denoise(driver, steps=5)
    assert finish(driver) == (Outcome.FAILED_CLOSED,)
    assert driver.report.degraded == ("never_looked",)


def test_a_negative_that_cannot_be_applied_counts_no_look_twice():
    registry = CollectorRegistry()

    class Broken:
        def hold(self, negatives):
            raise RuntimeError("encoder")

    run(guard([{"star": 0.9}], registry=registry), steering=Broken())
    assert registry.get_sample_value("dnp_guard_queries_total", {"policy": "test", "outcome": "failed"}) == 0


def test_a_refused_request_has_a_report_of_its_own():
    watching = guard([{}], policy(queries={"max_questions": 3}))
    with pytest.raises(RequestRefused):
        start(watching)
    assert watching.last.decision is Outcome.FAILED_CLOSED


def test_categories_that_are_all_in_shadow_withhold_nothing_on_failure():
    of = policy(categories=[star(mode="shadow")])
    assert run(guard([{"error": "timeout"}], of)) == (Outcome.UNASKED,)


def test_a_deadline_bounds_the_wait_and_the_policy_decides():
    from threading import Event

    release = Event()

    def never(images, questions):
        release.wait(30)
        return [[0.0] * len(questions) for _ in images]

    watching = Guard(policy(queries={"deadline_ms": 20}), vlm=ScriptedBackend(never))
    try:
        assert run(watching) == (Outcome.FAILED_CLOSED,)
    finally:
        release.set()
        watching.close()
    assert set(watching.last.degraded) == {"vlm_timeout", "vlm_busy"}


def test_an_abandoned_generation_is_recorded_as_one():
    sink = MemorySink()
    start(guard([{}], audit=sink)).abandon("KeyboardInterrupt")
    assert sink.records[-1]["event"] == "request.abandoned"


@pytest.mark.parametrize(
    ("vlm", "message"),
    [("nothing:here", "no backend knows the spec"), (object(), r"has no ask\(images, questions\)")],
)
def test_a_backend_that_cannot_be_used_is_refused_at_construction(vlm, message):
    with pytest.raises(VlmUnavailable, match=message):
        Guard(policy(), vlm=vlm)


@pytest.mark.parametrize("wrong", [None, {"format": 1, "name": "p"}])
def test_what_is_no_policy_is_refused_with_what_is_one(wrong):
    with pytest.raises(PolicyError, match=r"is not a policy.*Policy\.model_validate"):
        Guard(wrong, vlm=ScriptedBackend([{}]))


def test_one_plugin_by_its_name_alone_is_one_plugin():
    with pytest.raises(PluginError, match="'nowhere'"):
        Guard(policy(), vlm=ScriptedBackend([{}]), plugins="nowhere")


def test_a_class_in_place_of_a_pipeline_is_named():
    with pytest.raises(CannotSteer, match=r"the class .*\.Request\n.*from_pretrained"):
        guard([{}]).attach(Request)


def test_a_bad_policy_is_refused_at_construction(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("format: 1\nname: p\ncategories: [{id: a, negative: [a], treshold: 0.5}]\n")
    with pytest.raises(PolicyError, match=r"p\.yaml:3:\d+: .*treshold.*threshold"):
        Guard(path, vlm=ScriptedBackend([{}]))


def test_a_sensitive_category_is_never_sent_to_a_remote_backend():
    of = policy(categories=[star(sensitive=True)])
    backend = ScriptedBackend([{}])
    backend.local = False
    with pytest.raises(VlmUnavailable, match="'star' is sensitive"):
        Guard(of, vlm=backend)


def test_too_many_questions_in_shadow_are_counted_and_not_refused():
    watching = guard([{}], policy(mode="shadow", queries={"max_questions": 3}))
    assert run(watching) == (Outcome.UNASKED,)
    assert watching.last.degraded == ("max_questions",)


def test_a_similar_step_is_not_skipped_for_a_category_that_the_last_look_did_not_ask_about():
    late = bolt(queries={"steps": [0.7]})
    of = policy(categories=[star(queries={"steps": [0.5]}), late], queries={"skip_similar": 0.9})
    holds = Holds()
    run(guard([{"bolt": 0.9}], of), view=lambda index: Pictures([PICTURE], [1.0]), steering=holds)
    assert list(holds.held.values()) == [["bolt, a bolt"]]
