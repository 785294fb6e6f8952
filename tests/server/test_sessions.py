from __future__ import annotations

import base64

import pytest

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.redact import subject_hash
from tests.server.conftest import ask, begin, data_url, finish, images

SEEN = {"a star": 0.9}
NOTHING = {"a star": 0.0}
UNSURE = {"a star": 0.3}


def run(client, **asked):
    """Run a whole generation; return the session's id, the answers to its queries, and the verdicts."""
    opened = begin(client, **asked).json()
    answers = [ask(client, opened["session"], step).json() for step in opened["due"]]
    return opened["session"], answers, finish(client, opened["session"]).json()["images"]


def torn():
    """Return a picture for a query: a JPEG with a complete header whose pixels are cut off."""
    head, _, text = data_url(size=(64, 64), kind="JPEG").partition(",")
    return [{"index": 0, "data": f"{head},{base64.b64encode(base64.b64decode(text)[:-24]).decode()}"}]


def test_a_session_says_when_to_ask_and_what_holds(serve):
    opened = begin(serve(NOTHING)).json()
    assert opened["due"] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    assert opened["due_progress"][0] == 0.08
    assert opened["policy"] == "glyphs"
    assert opened["on_failure"] == "closed"
    assert opened["deadline_ms"] is None
    assert opened["user_previews"] == "withhold"


def test_a_finding_is_steered_away_from(serve):
    _, answers, _ = run(serve([UNSURE, SEEN, SEEN]))
    assert [answer["images"][0]["action"] for answer in answers[:3]] == ["none", "steer", "steer"]
    assert answers[1]["images"][0] == {
        "index": 0,
        "negative": "star",
        "scale": 15.0,
        "mode": "separate",
        "attention": None,
        "action": "steer",
        "preview": "withhold",
    }


def test_a_finding_that_is_gone_is_no_longer_steered_away_from(serve):
    _, answers, verdicts = run(serve([SEEN, NOTHING]))
    assert answers[0]["images"][0]["action"] == "steer"
    assert answers[-1]["images"][0]["action"] == "none"
    assert verdicts[0]["decision"] == "steered"
    assert verdicts[0]["action"] == "pass"


def test_a_finding_at_the_end_is_blocked(serve):
    _, _, verdicts = run(serve(SEEN))
    assert verdicts[0]["decision"] == "blocked"
    assert verdicts[0]["action"] == "block"


def test_the_record_names_the_subject_by_a_keyed_hash(serve):
    begin(serve(NOTHING), subject="ann")
    log = serve.folder / "audit.jsonl"
    (started,) = [record for record in Log(log) if record["event"] == "request.started"]
    assert started["subject"] == subject_hash("ann", log)


def test_images_are_steered_apart(serve):
    client = serve([[NOTHING, SEEN]])
    opened = begin(client, images=2).json()
    answer = ask(client, opened["session"], opened["due"][0], 2).json()
    assert [image["negative"] for image in answer["images"]] == [None, "star"]


def test_shadow_steers_nothing(serve, tmp_path):
    policy = tmp_path / "shadow.yaml"
    policy.write_text("format: 1\nname: shadowed\nextends: base.yaml\nmode: shadow\n")
    (tmp_path / "base.yaml").write_text(
        "format: 1\nname: base\ncategories: [{id: star, title: Star, definition: A star., look_for: [a star], "
        "negative: [star], threshold: 0.5}]\n"
    )
    client = serve(SEEN, policy=policy)
    opened = begin(client).json()
    assert opened["user_previews"] == "allow"
    answers = [ask(client, opened["session"], step).json()["images"][0]["action"] for step in opened["due"]]
    assert set(answers) == {"none"}
    assert finish(client, opened["session"]).json()["images"][0]["action"] == "pass"


@pytest.mark.parametrize(("can", "words"), [([], "failed_open"), (["unasked", "more"], "unasked")])
def test_a_host_is_told_of_an_image_that_nobody_looked_at_in_words_that_it_knows(serve, tmp_path, can, words):
    policy = tmp_path / "shadow.yaml"
    policy.write_text("format: 1\nname: s\nmode: shadow\ncategories: [{id: star, negative: [star]}]\n")
    client = serve([{"error": "timeout"}], policy=policy)
    opened = begin(client, can=can).json()
    for step in opened["due"]:
        ask(client, opened["session"], step)
    verdict = finish(client, opened["session"]).json()["images"][0]
    assert verdict["decision"] == words
    assert verdict["action"] == "pass"
    assert serve.records[-1]["decision"] == "unasked"


def test_a_repeated_step_is_answered_the_same_and_looked_at_once(serve):
    client = serve([UNSURE, SEEN, NOTHING])
    session = begin(client).json()["session"]
    first, second = ask(client, session, 2).json(), ask(client, session, 4).json()
    assert ask(client, session, 4).json() == second
    assert ask(client, session, 2).json() == first
    assert sum(record["event"] == "query" for record in serve.records) == 2


def test_steps_only_grow(serve):
    client = serve(NOTHING)
    session = begin(client).json()["session"]
    ask(client, session, 8)
    answer = ask(client, session, 6)
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:dnp-guard:problem:step"


def test_a_step_that_is_not_due_is_answered_with_what_holds(serve):
    client = serve([SEEN, NOTHING])
    session = begin(client).json()["session"]
    answers = [ask(client, session, step).json() for step in (2, 3)]
    assert answers[0] == answers[1]
    assert sum(record["event"] == "query" for record in serve.records) == 1


@pytest.mark.parametrize("asked", [0, 10])
def test_a_session_that_was_not_asked_at_its_last_due_step_is_closed(serve, tmp_path, asked):
    policy = tmp_path / "open.yaml"
    policy.write_text(
        "format: 1\nname: open\non_failure: open\ncategories: [{id: star, title: Star, definition: A star., "
        "look_for: [a star], negative: [star], threshold: 0.5}]\n"
    )
    client = serve(NOTHING, policy=policy)
    opened = begin(client).json()
    for step in opened["due"][:-1][:asked]:
        ask(client, opened["session"], step)
    (verdict,) = finish(client, opened["session"]).json()["images"]
    assert verdict["decision"] == "failed_closed"
    assert verdict["action"] == "block"
    assert any("query_missing" in record.get("reason", "") for record in serve.records)


@pytest.mark.parametrize(
    ("action", "mode", "words"),
    [("steer", "enforce", "last"), ("block", "enforce", "closed"), ("block", "shadow", "last")],
)
def test_last_is_told_where_the_last_answer_cannot_have_been_to_block(serve, tmp_path, action, mode, words):
    policy = tmp_path / "last.yaml"
    policy.write_text(
        f"format: 1\nname: last\nmode: {mode}\non_failure: last\ncategories: [{{id: star, title: Star, definition: A "
        f"star., look_for: [a star], negative: [star], threshold: 0.5, action: {action}}}]\n"
    )
    assert begin(serve(NOTHING, policy=policy)).json()["on_failure"] == words


def test_a_look_that_fails_is_due_again_at_the_next_step(serve):
    client = serve([{"error": "timeout"}, SEEN])
    session = begin(client).json()["session"]
    first, second = ask(client, session, 2).json(), ask(client, session, 3).json()
    assert first["answered"] is False
    assert second["answered"] is True
    assert second["images"][0]["action"] == "steer"


def test_unknown_steps_go_by_progress(serve):
    client = serve([SEEN])
    opened = begin(client, steps=None).json()
    assert opened["due"] is None
    early = ask(client, opened["session"], 1, progress=0.05).json()
    late = ask(client, opened["session"], 2, progress=0.1).json()
    assert [answer["images"][0]["action"] for answer in (early, late)] == ["none", "steer"]
    last = ask(client, opened["session"], 9, progress=1, since=0.1)
    assert last.status_code == 200
    assert finish(client, opened["session"]).json()["images"][0]["decision"] == "blocked"


def test_unknown_steps_need_the_progress(serve):
    client = serve(NOTHING)
    session = begin(client, steps=None).json()["session"]
    answer = ask(client, session, 1, progress=None)
    assert answer.status_code == 422


def test_a_negative_that_cannot_take_effect_is_recorded_and_steers_nothing(serve):
    client = serve([SEEN, NOTHING])
    opened = begin(client).json()
    for step in opened["due"]:
        ask(client, opened["session"], step, effective=False)
    assert finish(client, opened["session"]).json()["images"][0]["decision"] == "monitored"
    injected = [record for record in serve.records if record["event"] == "negative.injected"]
    assert [record["negative"]["effective"] for record in injected] == [False]


def test_the_host_may_measure_what_is_similar(serve, tmp_path):
    policy = tmp_path / "skips.yaml"
    policy.write_text(
        "format: 1\nname: skips\nqueries: {skip_similar: 0.95}\ncategories: [{id: star, title: Star, definition: A "
        "star., look_for: [a star], negative: [star], threshold: 0.5}]\n"
    )
    client = serve([SEEN, NOTHING], policy=policy)
    opened = begin(client).json()
    assert opened["skip_similar"] == 0.95
    first, second, *_ = opened["due"]
    ask(client, opened["session"], first)
    alike = [{**image, "similarity": 0.99} for image in images()]
    answer = ask(client, opened["session"], second, images=alike)
    assert answer.headers["server-timing"].startswith("vlm;dur=0.00,")
    assert answer.json()["images"][0]["action"] == "steer"
    assert serve.records[-1]["event"] == "query.skipped"


def test_a_picture_that_is_passed_over_is_not_decoded(serve):
    client = serve(NOTHING)
    opened = begin(client).json()
    first, second, *_ = opened["due"]
    ask(client, opened["session"], first)  # a quiet look: the next due one is passed over
    answer = ask(client, opened["session"], second, images=torn())
    assert answer.status_code == 200
    assert serve.records[-1]["event"] == "query.skipped"


def test_a_picture_that_is_looked_at_and_cannot_be_decoded_is_refused(serve):
    client = serve(NOTHING)
    opened = begin(client).json()
    answer = ask(client, opened["session"], opened["due"][0], images=torn())
    assert answer.status_code == 422
    assert serve.records[-1]["event"] == "degraded"


def test_the_final_is_answered_the_same_again(serve):
    client = serve(NOTHING)
    session, _, verdicts = run(client)
    assert finish(client, session).json()["images"] == verdicts
    assert sum(record["event"] == "request.finished" for record in serve.records) == 1


def test_a_session_that_is_over_takes_no_more(serve):
    client = serve(NOTHING)
    session, _, _ = run(client)
    answer = ask(client, session, 24)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:dnp-guard:problem:over"


def test_an_ended_session_is_abandoned_once(serve):
    client = serve(NOTHING)
    session = begin(client).json()["session"]
    assert [client.delete(f"/v1/sessions/{session}").status_code for _ in range(2)] == [204, 204]
    assert sum(record["event"] == "request.abandoned" for record in serve.records) == 1
    assert finish(client, session).status_code == 409


def test_an_unknown_session_is_no_session(serve):
    client = serve(NOTHING)
    assert ask(client, "0" * 32, 2).status_code == 404


def test_a_session_left_alone_expires(serve):
    client = serve(NOTHING, limits={"idle_s": 0.000001})
    session = begin(client).json()["session"]
    client.app.state.service.sweep()
    assert ask(client, session, 2).status_code == 404
    assert serve.records[-1]["event"] == "request.abandoned"


def test_the_end_of_the_service_abandons_what_is_open(serve):
    begin(serve(NOTHING))
    serve.stop()
    assert [record["event"] for record in serve.records][-1] == "request.abandoned"


def test_records_name_the_session_and_the_host(serve):
    client = serve(NOTHING)
    session, _, _ = run(client, prompts=["a lake"])
    started = next(record for record in serve.records if record["event"] == "request.started")
    assert started["request"] == session
    assert started["host"] == {"name": "tests", "version": "1"}
    assert "hmac" in started["prompt"]
