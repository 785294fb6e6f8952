"""The service tells under which policy it would open a session now."""

from __future__ import annotations

import pytest

from dnp_guard.server import tokens
from tests.server.conftest import begin

STRICT = (
    "format: 1\nname: strict\nrevision: '2'\ncategories: [{id: star, title: Star, definition: A star., "
    "look_for: [a star], negative: [star], threshold: 0.2}]\n"
)


def test_the_policy_is_that_of_a_session(serve):
    client = serve({})
    document, opened = client.get("/v1/policy").json(), begin(client).json()
    del document["backend"]
    assert document == {"policy": "glyphs", "revision": "1.0.0", "digest": opened["digest"], "mode": "enforce"}


def test_another_answer_of_the_model_is_another_backend(serve):
    first, same, other = (serve(looks).get("/v1/policy").json()["backend"] for looks in ({}, {}, {"star": 0.9}))
    assert first == same
    assert other != first


def test_a_token_hears_of_the_policy_that_it_names(serve, tmp_path):
    (tmp_path / "strict.yaml").write_text(STRICT)
    token = tokens.add(tmp_path / "tokens.json", policies=["strict.yaml"])
    client = serve({}, token_file=tmp_path / "tokens.json")
    client.headers["Authorization"] = f"Bearer {token}"
    asked = {"policy": "strict"}
    document, opened = client.get("/v1/policy", params=asked).json(), begin(client, **asked).json()
    assert document["digest"] == opened["digest"]
    assert document["digest"] != client.get("/v1/policy").json()["digest"]


@pytest.mark.parametrize(("query", "status"), [("?policy=other", 403), ("?policy=" + "a" * 201, 422)])
def test_no_token_hears_of_another(serve, query, status):
    assert serve({}).get(f"/v1/policy{query}").status_code == status


def test_a_service_says_that_it_tells(serve):
    assert "policy" in serve({}).get("/readyz").json()["features"]
