"""No request that fits the service's own OpenAPI document makes the service fail."""

from __future__ import annotations

import json

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.conftest import HOST, data_url
from tests.server.processes import serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [
    "POST /v1/sessions",
    "POST /v1/sessions/{session}/inputs",
    "POST /v1/sessions/{session}/queries",
    "POST /v1/sessions/{session}/final",
    "DELETE /v1/sessions/{session}",
    "GET /v1/policy",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
]
some = settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    looks = tmp_path_factory.mktemp("looks") / "looks.json"
    looks.write_text(json.dumps([{"a star": 0.9}, {"a star": 0.0}]))
    limits = ("--rate", 10**9, "--max-sessions", 10**9)
    with serving("--policy", "glyphs", "--vlm", f"scripted:{looks}", *limits) as running:
        yield running.url


@pytest.fixture(scope="module")
def document(url):
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_operation_is_tried(document):
    assert {operation.ok().label for operation in document.get_all_operations()} == set(OPERATIONS)


def operation(document, label):
    return next(operation.ok() for operation in document.get_all_operations() if operation.ok().label == label)


@pytest.mark.parametrize(
    ("label", "mode"),
    [(label, GenerationMode.POSITIVE) for label in OPERATIONS]
    + [(label, GenerationMode.NEGATIVE) for label in OPERATIONS if label.startswith("POST")],
)
def test_no_made_up_request_makes_the_service_fail(document, label, mode):
    @some
    @given(operation(document, label).as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(checks=CHECKS)

    check()


@pytest.mark.parametrize("label", [label for label in OPERATIONS if "{session}" in label])
def test_no_made_up_request_of_an_open_session_makes_the_service_fail(url, document, label):
    @some
    @given(operation(document, label).as_strategy(), st.booleans())
    def check(case, seen):
        begun = {"protocol": 1, "host": HOST, "images": 1}
        opened = httpx2.post(f"{url}/v1/sessions", json=begun, trust_env=False).json()
        case.path_parameters["session"] = opened["session"]
        if seen and isinstance(case.body, dict):
            case.body["images"] = [{"index": 0, "data": data_url()}]
        case.call_and_validate(checks=CHECKS)

    check()
