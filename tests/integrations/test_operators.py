"""Grafana's queries and Prometheus's alerting rules name existing metrics, and the rules fire as described."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from dnp_guard.telemetry import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "integrations" / "prometheus"
RULES = YAML(typ="safe").load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
TESTS = YAML(typ="safe").load((PROMETHEUS / "alerts.test.yml").read_text(encoding="utf-8"))["tests"]
DASHBOARD = json.loads((ROOT / "integrations" / "grafana" / "dnp-guard.json").read_text(encoding="utf-8"))
RUNBOOK = (ROOT / "docs" / "how-to" / "telemetry.md").read_text(encoding="utf-8")


def metrics():
    """Return the names of all metrics of a guard, with their labels."""
    registry = CollectorRegistry()
    Metrics(registry)
    shown = {}
    for collector in dict.fromkeys(registry._collector_to_names):  # noqa: SLF001 (its public face hides unused labels)
        (family,) = collector.describe()
        labels = set(collector._labelnames)  # noqa: SLF001 (as above)
        if family.type == "counter":
            shown[f"{family.name}_total"] = labels
        elif family.type == "histogram":
            shown |= {f"{family.name}_sum": labels, f"{family.name}_count": labels}
            shown[f"{family.name}_bucket"] = labels | {"le"}
        else:
            shown[family.name] = labels
    return shown


METRICS = metrics()


def queries():
    variables = [
        variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"
    ]
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*variables, *panels, *(rule["expr"] for rule in RULES)]


@pytest.mark.parametrize("query", queries())
def test_every_metric_and_label_of_a_query_exists(query):
    named = re.findall(r"(dnp_guard_\w+)(?:\{([^}]*)\})?", query)
    matched = {(name, label) for name, matchers in named for label in re.findall(r"(\w+)\s*=", matchers)}
    grouped = {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in labels.split(",")}
    known = set.union(*(METRICS.get(name, set()) for name, _ in named)) | {"instance"}
    assert named
    assert [name for name, _ in named if name not in METRICS] == []
    assert [pair for pair in matched if pair[1] not in METRICS[pair[0]]] == []
    assert grouped - known == set()


def test_the_dashboard_has_a_panel_for_every_metric():
    shown = " ".join(queries()[: -len(RULES)])
    names = {re.sub("_(sum|count|bucket)$", "", name) for name in METRICS}
    assert [name for name in names if name not in shown] == []


def test_the_panels_of_the_dashboard_do_not_overlap():
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule):
    page, _, section = rule["annotations"]["runbook"].partition("#")
    assert page == "how-to/telemetry.html"
    assert f"({section})=\n" in RUNBOOK
    assert "summary" in rule["annotations"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_tested_to_fire_and_not_to(rule):
    cases = [case for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (Debian: prometheus)")
@pytest.mark.parametrize("command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]])
def test_promtool_agrees(command):
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
