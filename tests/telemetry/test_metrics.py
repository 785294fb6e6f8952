from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from dnp_guard.errors import DnpGuardError
from dnp_guard.telemetry import Metrics, names


def test_every_metric_has_the_contracts_name_and_labels() -> None:
    metrics = Metrics()
    metrics.queries("default", "answered", images=4)
    metrics.query_seconds(0.02)
    metrics.negative("default", "nudity")
    metrics.generation("default", "steered")
    metrics.degraded("vlm_timeout")
    with metrics.overhead("judge"):
        pass
    metrics.policy_info("default", "1.0.0", "abc", "enforce")
    metrics.reload("ok")
    get = metrics.registry.get_sample_value
    assert get("dnp_guard_queries_total", {"policy": "default", "outcome": "answered"}) == 4
    assert get("dnp_guard_query_seconds_count") == 1
    assert get("dnp_guard_negatives_injected_total", {"policy": "default", "category": "nudity"}) == 1
    assert get("dnp_guard_generations_total", {"policy": "default", "decision": "steered"}) == 1
    assert get("dnp_guard_degraded_total", {"reason": "vlm_timeout"}) == 1
    assert get("dnp_guard_overhead_seconds_count", {"stage": "judge"}) == 1
    policy = {"name": "default", "revision": "1.0.0", "digest": "abc", "mode": "enforce"}
    assert get("dnp_guard_policy_info", policy) == 1
    assert get("dnp_guard_policy_reloads_total", {"result": "ok"}) == 1


def test_the_default_registry_is_left_alone() -> None:
    Metrics().queries("default", "answered")
    assert b"dnp_guard" not in generate_latest(REGISTRY)


def test_metrics_without_a_registry_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.degraded("x")
    assert second.registry.get_sample_value(names.DEGRADED, {"reason": "x"}) is None


def test_metrics_of_one_registry_count_together() -> None:
    registry = CollectorRegistry()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Metrics(registry).degraded("x"), range(64)))
    assert registry.get_sample_value(names.DEGRADED, {"reason": "x"}) == 64


def test_a_registry_with_foreign_metrics_of_these_names_is_refused() -> None:
    registry = CollectorRegistry()
    Counter(names.DEGRADED, "of somebody else", registry=registry)
    with pytest.raises(DnpGuardError, match="another registry"):
        Metrics(registry)


def test_a_new_revision_takes_the_place_of_the_old_one() -> None:
    metrics = Metrics()
    metrics.policy_info("default", "1.0.0", "abc", "enforce")
    metrics.policy_info("other", "1.0.0", "xyz", "shadow")
    metrics.policy_info("default", "1.0.1", "def", "enforce")
    samples = next(metric.samples for metric in metrics.registry.collect() if metric.name == names.POLICY_INFO)
    assert sorted(sample.labels["digest"] for sample in samples) == ["def", "xyz"]


def test_overhead_is_timed_where_the_stage_raises_and_the_error_goes_on() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError), metrics.overhead("ask"):
        raise KeyError
    assert metrics.registry.get_sample_value(names.OVERHEAD + "_count", {"stage": "ask"}) == 1


def test_a_failing_metric_is_logged_and_does_not_raise(caplog: pytest.LogCaptureFixture) -> None:
    Metrics().queries("default", "answered", images=-1)
    assert "telemetry failed in Metrics.queries" in caplog.text


def test_tenants_are_told_apart_as_far_as_their_number_is_bounded() -> None:
    registry = CollectorRegistry()
    Metrics(registry, tenants=1)
    for tenant in ("kids", "acme", "beta"):
        Metrics(registry, tenant=tenant).generation("default", "clean")
    values = {
        tenant: registry.get_sample_value(
            "dnp_guard_generations_total", {"policy": "default", "decision": "clean", "tenant": tenant}
        )
        for tenant in ("kids", "acme", "beta", "other")
    }
    assert values == {"kids": 1, "acme": None, "beta": None, "other": 2}


def test_guards_of_one_registry_show_each_their_own_digest_and_what_none_has_any_more_goes() -> None:
    registry = CollectorRegistry()
    kids, other = Metrics(registry), Metrics(registry)
    for metrics, digest in ((kids, "abc"), (other, "abc"), (kids, "def")):
        metrics.policy_info("default", "1", digest, "enforce")

    def shown() -> set[str]:
        info = next(metric for metric in registry.collect() if metric.name == names.POLICY_INFO)
        return {sample.labels["digest"] for sample in info.samples}

    assert shown() == {"abc", "def"}
    other.policy_info("default", "1", "def", "enforce")
    assert shown() == {"def"}
