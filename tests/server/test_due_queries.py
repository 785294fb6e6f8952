"""The service decides about an image although the host has left out due queries."""

from __future__ import annotations

import pytest
from PIL import Image

from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service
from tests.server.conftest import ask, begin, finish

NOTHING = {"a star": 0.0}
GREY = Image.new("RGB", (16, 16), "grey")


@pytest.fixture
def client(serve, tmp_path):
    """Return a client of a service whose policy lets images pass after failures, and has a final look."""
    policy = tmp_path / "open.yaml"
    policy.write_text(
        "format: 1\nname: open\non_failure: open\nqueries: {steps: [0.5, 0.75], final: true}\ncategories: [{id: star, "
        "title: Star, definition: A star., look_for: [a star], negative: [star], threshold: 0.5}]\n"
    )
    return serve(NOTHING, policy=policy)


def decision(client, queries, **asked):
    """Run a generation whose host sends these queries, and return the decision on its image."""
    session = begin(client, **asked).json()["session"]
    for query in queries:
        ask(client, session, query.pop("step"), **query)
    return finish(client, session).json()["images"][0]["decision"]


@pytest.mark.parametrize(
    "queries",
    [
        [{"step": 24}],
        [{"step": 13}, {"step": 24}],
        [{"step": 19}],
        [{"step": 15}, {"step": 19}],
        [{"step": 13}],
        [{"step": 24, "ended": True}],
        [{"step": 16, "ended": True}],
        [{"step": 0, "ended": True}, {"step": 13}, {"step": 19}],
        [{"step": 0, "ended": True}, {"step": 19, "failed": True}],
    ],
)
def test_an_image_is_closed_where_the_run_passed_a_due_step_that_nobody_asked_at(client, serve, queries):
    assert decision(client, queries) == "failed_closed"
    assert any("query_missing" in record.get("reason", "") for record in serve.records)


@pytest.mark.parametrize(
    "queries",
    [
        [{"step": 13}, {"step": 19}],
        [{"step": 14}, {"step": 20}],
        [{"step": step} for step in range(25)],
        [{"step": 5, "ended": True}],
        [{"step": 13}, {"step": 17, "ended": True}],
        [{"step": 13}, {"step": 19}, {"step": 25, "ended": True}],
    ],
)
def test_a_due_step_is_met_at_it_or_at_the_next_and_none_is_owed_after_the_end(client, queries):
    assert decision(client, queries) == "clean"


def test_a_host_that_tried_and_failed_has_missed_a_look_which_a_later_answer_makes_up_for(client, serve):
    assert decision(client, [{"step": 17, "failed": True}, {"step": 19}]) == "clean"
    assert any(record["event"] == "degraded" for record in serve.records)


REFUSED = [{"index": 0, "data": "data:image/png;base64,AAAA"}]


def test_a_host_whose_pictures_were_refused_has_asked(client):
    refused = [{"step": 13, "images": REFUSED}, {"step": 14, "images": REFUSED}]
    assert decision(client, [*refused, {"step": 15}, {"step": 19}]) == "clean"


def test_a_refused_picture_stands_for_no_due_step_that_was_left_out(client):
    assert decision(client, [{"step": 24, "images": REFUSED}, {"step": 24}]) == "failed_closed"


def test_a_step_beyond_the_number_that_was_said_is_refused_and_counted(client, serve):
    session = begin(client, steps=50).json()["session"]
    assert ask(client, session, 999_999, progress=1).status_code == 422
    assert finish(client, session).json()["images"][0]["decision"] == "failed_closed"
    assert sum(record["event"] == "degraded" for record in serve.records) == 2


@pytest.mark.parametrize(
    ("queries", "became"),
    [
        ([{"step": 40, "progress": 1}], "failed_closed"),
        ([{"step": 40, "progress": 1, "since": 0.8}], "failed_closed"),
        ([{"step": 3, "progress": 1, "since": 0.4}], "clean"),
        ([{"step": 3, "progress": 0.4, "since": 0.3, "ended": True}], "clean"),
        ([{"step": 3, "progress": 0.6}, {"step": 9, "progress": 0.8}], "clean"),
        ([{"step": 0, "progress": 1}], "clean"),
        ([{"step": 3, "progress": 0.6, "since": 0.4996}, {"step": 4, "progress": 1, "since": 0.6}], "clean"),
        ([{"step": 3, "progress": 0.7496}, {"step": 4, "progress": 1}], "clean"),
    ],
)
def test_a_host_with_unknown_steps_reports_the_progress_of_the_step_before(client, queries, became):
    assert decision(client, queries, steps=None) == became


@pytest.mark.parametrize("ended", [True, False])
def test_a_client_says_that_a_run_has_ended_to_a_service_that_knows_of_it(service, monkeypatch, ended):
    client = service("{a star: 0.0}")
    if not ended:
        monkeypatch.setattr(Service, "features", lambda _: ())
    with client.open(images=1, steps=25, host=Host(name="tests")) as session:
        session.query(1, [GREY], ended=True)
        (verdict,) = session.final([GREY])
    assert verdict.decision == ("clean" if ended else "failed_closed")


def test_a_client_says_that_it_could_not_make_a_picture(service):
    client = service("{a star: 0.0}")
    with client.open(images=1, steps=25, host=Host(name="tests")) as session:
        with pytest.raises(AttributeError):
            session.query(2, [None])
        for step in range(6, 25, 2):
            session.query(step, [GREY])
        (verdict,) = session.final([GREY])
    assert verdict.decision == "clean"
