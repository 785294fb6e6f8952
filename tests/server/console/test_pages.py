from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from dnp_guard.audit import verify
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.server.console.index import Index
from dnp_guard.server.console.overview import DAYS, OverviewFilter, overview
from tests.server.console.conftest import (
    BLOCKED,
    CLEAN,
    EVIL,
    HOSTILE,
    POLICY,
    STEERED,
    appeal_link,
    judge,
    write,
)

PAGES = (
    "/console",
    "/console?show=all",
    "/console?show=sample",
    "/console?show=appeals",
    f"/console/image/{BLOCKED}/0",
    f"/console/image/{HOSTILE}/0",
    "/console/overview",
    "/console/overview?category=nudity",
    "/console/thresholds?category=nudity",
    "/console/thresholds?category=nudity&pictures=1",
    "/console/changes",
)


class Page(HTMLParser):
    """The parts of an HTML page that security and accessibility rules concern.

    Attributes:
        scripts: sources of its scripts; None for an inline script.
        handlers: names of its event handlers and style attributes.
        fields: ids of its form fields.
        labelled: ids of the fields that have a label.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.handlers: list[str] = []
        self.fields: list[str | None] = []
        self.labelled: set[str] = set()
        self._labels = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "script":
            self.scripts.append(given.get("src"))
        if tag == "label":
            self._labels += 1
            self.labelled.add(given.get("for", ""))
        kind = given.get("type")
        if tag in {"select", "textarea"} or (tag == "input" and kind != "hidden"):
            self.fields.append("" if self._labels else given.get("id"))

    def handle_endtag(self, tag):
        self._labels -= tag == "label"


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_for_a_policy_owner(path, people):
    assert people("policy_owner").get(path).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_no_text_of_the_record_becomes_a_tag(path, people):
    page = Page(people("policy_owner").get(path).text)
    assert page.scripts == ["/console/static/console.js"]
    assert page.handlers == []


@pytest.mark.parametrize("path", PAGES)
def test_every_field_has_a_label(path, people):
    page = Page(people("policy_owner").get(path).text)
    assert [name for name in page.fields if name and name not in page.labelled] == []
    assert None not in page.fields


def test_every_answer_forbids_scripts_from_elsewhere(people):
    policy = people("moderator").get("/console").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {BLOCKED, STEERED, HOSTILE}),
        ("?show=all", {BLOCKED, STEERED, HOSTILE, CLEAN}),
        ("?show=all&decision=clean", {CLEAN}),
        ("?category=nudity", {BLOCKED, STEERED}),
        ("?tenant=globex", {STEERED}),
        ("?show=all&request=" + BLOCKED[:32], {BLOCKED}),
        ("?show=reviewed", set()),
    ],
)
def test_the_queue_is_filtered(query, expected, people):
    text = people("moderator").get(f"/console{query}").text
    assert {of for of in (BLOCKED, STEERED, HOSTILE, CLEAN) if f"/console/image/{of}/0" in text} == expected


def test_an_image_shows_step_by_step_what_was_seen(people):
    text = people("moderator").get(f"/console/image/{BLOCKED}/0").text
    assert "5 of 25" in text
    assert "0.93 of 0.50" in text


def test_the_console_shows_records_written_while_it_runs(people, log):
    write(log, "f" * 32, "blocked", probability=0.8)
    people.app.state.console.refresh()
    assert "f" * 12 in people("moderator").get("/console").text


def test_a_generation_that_is_not_finished_is_shown_once_it_is(people, log):
    sink = JsonlSink(log)
    finding = {"category": "nudity", "term": "t", "probability": 0.7, "threshold": 0.5}
    sink.write(build("request.started", request="e" * 32))
    sink.write(build("query", request="e" * 32, image=0, step=1, findings=[finding]))
    people.app.state.console.refresh()
    sink.write(build("request.finished", request="e" * 32, image=0, decision="steered"))
    people.app.state.console.refresh()
    assert "nudity (t) 0.70 of 0.50" in people("moderator").get(f"/console?request={'e' * 32}").text


def test_a_verdict_is_a_record_and_leaves_the_queue(people, log):
    client = people("moderator")
    assert judge(client, BLOCKED, "false_alarm", note="a statue").status_code == 303
    (record,) = [entry for entry in Log(log) if entry["event"] == "verdict"]
    assert record["verdict"] == "false_alarm"
    assert record["by"] == "moderator"
    assert record["note"] == "a statue"
    assert record["policy"]["name"] == "default"
    assert BLOCKED not in client.get("/console").text
    assert verify(log).ok


def test_a_verdict_leads_to_the_next_image(people):
    client = people("moderator")
    assert judge(client, HOSTILE).headers["location"] == f"/console/image/{STEERED}/0"


def test_error_rates_have_intervals(people):
    client = people("moderator")
    judge(client, BLOCKED, "false_alarm")
    judge(client, STEERED, "right")
    assert "9.5 to 90.5 %" in client.get("/console/overview").text


def test_two_reviewers_are_compared(people):
    judge(people("moderator"), BLOCKED, "false_alarm")
    other = people("policy_owner")
    judge(other, BLOCKED, "right")
    assert "agree in 0 of 1 cases" in other.get("/console/overview").text


def test_a_higher_threshold_says_what_it_would_change(people):
    client = people("policy_owner")
    judge(client, STEERED, "false_alarm")
    text = client.get("/console/thresholds?category=nudity&at=0.6").text
    assert '<b id="left">1</b> of 2 images' in text
    assert '<b id="alarms">1</b>' in text


def test_a_threshold_is_moved_over_pictures_for_who_may_see_them(people):
    path = "/console/thresholds?category=nudity&pictures=1"
    shown = [f"{BLOCKED}-0-5.png" in people(role).get(path).text for role in ("moderator", "auditor")]
    assert shown == [True, False]


def test_a_kept_picture_is_said_to_show_the_category_and_no_probability(people):
    text = people("moderator").get("/console/thresholds?category=nudity&pictures=1").text
    assert 'alt="A stored picture in which nudity was seen"' in text


def test_a_file_that_is_no_kept_picture_is_not_looked_for(people, log):
    sink = JsonlSink(log)
    finding = {"category": "nudity", "term": "t", "probability": 0.9, "threshold": 0.5}
    forged = {"file": f"../{log.name}", "sha256": "0" * 64}
    sink.write(build("query", request="9" * 32, image=0, step=3, findings=[finding], preview=forged))
    sink.write(build("request.finished", request="9" * 32, image=0, decision="blocked"))
    people.app.state.console.refresh()
    text = people("moderator").get("/console/thresholds?category=nudity&pictures=1").text
    assert f"/console/picture/{'9' * 32}/" not in text


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 4),
        ("tenant=globex", 1),
        ("policy=default 1", 3),
        ("category=nudity", 2),
        ("category=nudity&tenant=acme", 1),
    ],
)
def test_the_overview_is_counted_by_tenant_policy_and_category(query, count, people):
    index = people.app.state.console.index
    asked = OverviewFilter(**dict(pair.split("=") for pair in query.split("&") if pair))
    with index.reading() as database:
        page = overview(database, asked)
    assert sum(counts.total() for _, counts in page.days) == count
    assert people("auditor").get(f"/console/overview?{query}").text.count("<rect") > 1


def test_the_overview_has_the_last_days_of_who_is_asked_for(tmp_path):
    sink, index = JsonlSink(tmp_path / "log"), Index(tmp_path / "log")
    first = datetime(2026, 1, 1, tzinfo=UTC)
    for day in range(DAYS + 1):
        of = {"tenant": "globex" if day else "acme", "policy": {**POLICY, "revision": "2" if day else "1"}}
        sink.write(
            build("request.finished", at=first + timedelta(day), request=str(day), image=0, decision="clean", **of)
        )
    index.update()
    with index.reading() as database:
        asked = [OverviewFilter(), OverviewFilter(tenant="acme"), OverviewFilter(policy="default 1")]
        days = [len(overview(database, filters).days) for filters in asked]
    assert days == [DAYS, 1, 1]


def test_the_overview_has_what_shadow_would_have_done(people, log):
    sink = JsonlSink(log)
    of = {"request": "9" * 32, "policy": {**POLICY, "mode": "shadow"}, "image": 0}
    sink.write(build("request.finished", **of, decision="clean", would={"decision": "blocked"}))
    people.app.state.console.refresh()
    assert "would be blocked" in people("auditor").get("/console/overview").text


def test_changes_say_who_and_why(people):
    text = people("auditor").get("/console/changes").text
    assert "approved by bob" in text
    assert "fewer false alarms" in text


def test_an_appeal_is_made_and_answered(people, log):
    client = people("moderator")
    link = appeal_link(client, BLOCKED)
    person = people(None)
    assert person.post(link, data={"text": "It is a statue."}).status_code == 303
    path = f"/console/image/{BLOCKED}/0"
    assert "It is a statue." in client.get(path).text
    form = client.get(path).text.split('name="form" value="')[1].split('"')[0]
    client.post(f"{path}/answer", data={"answer": "overturned", "form": form})
    assert "is overturned" in person.get(link).text
    assert [record["event"] for record in Log(log)][-2:] == ["appeal", "appeal.answered"]


def test_an_appeal_page_shows_no_policy_and_no_picture(people):
    text = people(None).get(appeal_link(people("moderator"), HOSTILE)).text
    assert "nudity" not in text
    assert EVIL not in text
    assert "default" not in text
    assert "<img" not in text


def test_a_decision_is_appealed_once(people):
    link = appeal_link(people("moderator"), BLOCKED)
    person = people(None)
    assert [person.post(link, data={"text": "x"}).status_code for _ in range(2)] == [303, 409]


def test_a_host_gets_a_link_for_its_user(people):
    host = people(None, tenant="acme")
    answer = host.post("/v1/appeals", json={"session": BLOCKED}, headers={"authorization": f"Bearer {host.token}"})
    assert answer.status_code == 201
    assert people(None).get(answer.json()["path"]).status_code == 200


def test_a_host_gets_no_link_for_another_tenants_image(people):
    host = people(None, tenant="acme")
    answer = host.post("/v1/appeals", json={"session": STEERED}, headers={"authorization": f"Bearer {host.token}"})
    assert answer.status_code == 404
