"""``policy explain``, the guard, the audit records and the metrics name the same digest for the policy in force."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.cli.policy_explain import explanation, selected
from dnp_guard.policy import as_store
from dnp_guard.telemetry import names
from tests.policies import at, bolt, policy, star
from tests.sampler import finish, start

NOW = datetime(2026, 12, 24, tzinfo=UTC)
LATER = "2099-01-01T00:00:00Z"
WHOM = [{}, {"region": "eu"}, {"surface": "ads"}, {"region": "eu", "surface": "ads"}]


class Silent:
    def ask(self, images, questions):
        return [[0.0] * len(questions) for _ in images]


@st.composite
def files(draw):
    """Generate random policies of a store, for property tests: the texts of the files by their names."""
    made = {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "floor"]), min_size=1, max_size=3, unique=True)):
        data = {
            "format": 1,
            "name": name,
            "revision": draw(st.sampled_from(["1", "2"])),
            "mode": draw(st.sampled_from(["enforce", "shadow"])),
            "categories": [
                item
                for item in (
                    star(
                        threshold=draw(st.sampled_from([0.3, 0.6])), mode=draw(st.sampled_from(["enforce", "shadow"]))
                    ),
                    bolt(),
                )
                if draw(st.booleans())
            ]
            or [star()],
        }
        if name != "floor":
            data["select"] = draw(
                st.sampled_from(
                    [{}, {"tenants": ["kids"]}, {"regions": ["eu"]}, {"surfaces": ["ads"], "regions": ["eu"]}]
                )
            )
        if draw(st.booleans()):
            tenant = draw(st.sampled_from([{}, {"tenant": "kids"}]))
            category = data["categories"][0]["id"]
            until = draw(st.sampled_from([LATER, "2020-01-01T00:00:00Z"]))
            reason = {"until": until, "reason": "Art.", "approved_by": "A. Person"}
            data["exceptions"] = [{"category": category, "set": {"threshold": 0.9}, **tenant, **reason}]
        made[f"{name}.yaml"] = {key: value for key, value in data.items() if value != {}}
    return made


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(files(), st.sampled_from(["kids", "other"]), st.sampled_from(WHOM))
def test_explain_the_guard_the_record_and_the_metrics_agree_on_the_digest(tmp_path_factory, store, tenant, whom):
    folder = tmp_path_factory.mktemp("store")
    for name, data in store.items():
        YAML().dump(data, folder / name)
    # Requests without a region must still get a policy of this store.
    assume(any(has_none(data, tenant) for data in store.values()))
    sink = MemorySink()
    with Guard(folder, vlm=Silent(), tenant=tenant, audit=sink) as guard, guard.tightened(**whom):
        document = explanation(
            selected(str(folder), tenant, whom.get("region"), whom.get("surface"), datetime.now(UTC))
        )
        driver = start(guard)
        finish(driver)
        guard.settle()
        shown = {
            sample.labels["digest"]
            for metric in guard.metrics.registry.collect()
            if metric.name == names.POLICY_INFO
            for sample in metric.samples
        }
        recorded = {record["policy"]["digest"] for record in sink.records if "request" in record}
        assert {guard.policy.digest, driver.report.digest, *recorded} == {document["policy"]["digest"]}
        assert document["policy"]["digest"] in shown


def has_none(data, tenant):
    select = data.get("select", {})
    return not (select.get("regions") or select.get("surfaces")) and tenant in select.get("tenants", [tenant])


EXCEPTION = {
    "category": "star",
    "set": {"threshold": 0.8},
    "until": "2026-12-31T00:00:00Z",
    "reason": "An exhibition.",
    "approved_by": "Head of policy",
}


def test_an_exception_is_recorded_when_it_starts_and_when_it_ends_with_who_approved_it_and_why():
    sink, lasting = MemorySink(), EXCEPTION | {"until": LATER}
    with Guard(policy(exceptions=[lasting]), vlm=Silent(), audit=sink) as guard:
        excepted = guard.policy.digest
        with at(datetime(2099, 1, 1, tzinfo=UTC)):
            finish(start(guard))
            plain = guard.policy.digest
    events = {record["event"]: record for record in sink.records if record["event"].startswith("exception")}
    document = {key: lasting[key] for key in ("category", "set", "until", "approved_by")}
    assert [events[name]["exception"] for name in events] == [document, document]
    assert list(events) == ["exception.started", "exception.ended"]
    assert [record["reason"] for record in events.values()] == ["An exhibition."] * 2
    assert [record["policy"]["digest"] for record in events.values()] == [excepted, plain]
    assert plain == policy().digest


def test_an_exception_reaches_the_final_look():
    in_force = as_store(policy(exceptions=[EXCEPTION])).select(at=NOW)
    assert in_force.policy.category("star").final_threshold == 0.8


def test_two_tenants_with_digests_of_their_own_are_both_shown(tmp_path):
    from prometheus_client import CollectorRegistry

    path = tmp_path / "p.yaml"
    exception = EXCEPTION | {"tenant": "kids", "until": LATER}
    path.write_text(json.dumps(policy(exceptions=[exception]).resolved()))
    registry = CollectorRegistry()
    with (
        Guard(path, vlm=Silent(), tenant="kids", registry=registry) as kids,
        Guard(path, vlm=Silent(), tenant="other", registry=registry) as other,
    ):
        (info,) = [metric for metric in registry.collect() if metric.name == names.POLICY_INFO]
        digests = {sample.labels["digest"] for sample in info.samples}
        assert kids.policy.digest != other.policy.digest
        assert digests == {kids.policy.digest, other.policy.digest}


@pytest.mark.parametrize(("tenant", "threshold"), [("kids", 0.8), ("other", 0.5)])
def test_explain_shows_what_is_in_force_and_which_exceptions_are(tmp_path, tenant, threshold):
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(policy(exceptions=[EXCEPTION | {"tenant": "kids"}]).resolved()))
    document = explanation(selected(str(tmp_path), tenant, None, None, NOW))
    assert document["categories"][0]["threshold"] == threshold
    assert [exception["approved_by"] for exception in document["exceptions"]] == ["Head of policy"] * (tenant == "kids")
