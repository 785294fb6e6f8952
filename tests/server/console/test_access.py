from __future__ import annotations

import json

import pytest

from dnp_guard.audit.previews import make_key, read_key
from dnp_guard.errors import DnpGuardError
from dnp_guard.server.app import create
from dnp_guard.server.console.access import APPEAL_S, SIGNED_IN_S, Keyring
from dnp_guard.server.settings import Settings
from tests.server.console.conftest import BLOCKED, STEERED, appeal_link, form_of, judge, write
from tests.server.console.test_pages import PAGES


@pytest.mark.parametrize("path", [*PAGES, "/console/picture/x/y"])
def test_no_page_is_shown_without_signing_in(path, people):
    answer = people(None).get(path)
    assert answer.status_code == 401
    assert "<table" not in answer.text


def test_a_hosts_token_signs_nobody_in(people):
    client = people(None)
    assert client.post("/console/sign-in", data={"token": client.token}).status_code == 401


def test_a_persons_token_opens_no_session(people):
    client = people("moderator")
    body = {"protocol": 1, "host": {"name": "x"}, "images": 1}
    answer = client.post("/v1/sessions", json=body, headers={"authorization": f"Bearer {client.token}"})
    assert answer.status_code == 401


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(people):
    client = people(None)
    token = people("moderator").token
    cookie = client.post("/console/sign-in", data={"token": token}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_moderator_does_not_see_who_changed_what(people):
    answer = people("moderator").get("/console/changes")
    assert answer.status_code == 403
    assert "bob" not in answer.text


@pytest.mark.parametrize("kind", ["verdict", "answer"])
def test_an_auditor_gives_no_verdict_and_answers_no_appeal(kind, people):
    client = people("auditor")
    data = {"verdict": "right", "answer": "upheld", "form": form_of(client.get("/console"))}
    assert client.post(f"/console/image/{BLOCKED}/0/{kind}", data=data).status_code == 403


def test_an_auditor_is_offered_no_verdict(people):
    text = people("auditor").get(f"/console/image/{BLOCKED}/0").text
    assert "Your verdict" not in text
    assert "/appeal/" not in text


@pytest.mark.parametrize("form", ["", "0" * 64, "\u00e9"])
def test_a_form_of_another_page_is_refused(form, people):
    client = people("moderator")
    data = {"verdict": "right", "form": form}
    assert client.post(f"/console/image/{BLOCKED}/0/verdict", data=data).status_code == 403


def test_a_form_of_another_person_is_refused(people):
    other = form_of(people("policy_owner").get("/console"))
    data = {"verdict": "right", "form": other}
    assert people("moderator").post(f"/console/image/{BLOCKED}/0/verdict", data=data).status_code == 403


def test_a_person_of_a_tenant_sees_that_tenant_alone(people):
    client = people("policy_owner", tenant="globex")
    text = client.get("/console?show=all&tenant=acme").text
    assert STEERED[:12] + "/0" in text
    assert f"/{BLOCKED}/" not in text
    assert client.get(f"/console/image/{BLOCKED}/0").status_code == 404
    assert judge(people("moderator"), BLOCKED).status_code == 303


def test_a_token_that_is_taken_back_ends_what_was_signed_in(people, tmp_path):
    client = people("moderator")
    file = tmp_path / "tokens.json"
    document = json.loads(file.read_text())
    document["tokens"] = [token for token in document["tokens"] if token["name"] != "moderator"]
    file.write_text(json.dumps(document))
    assert client.get("/console").status_code == 401


def test_signing_out_ends_it(people):
    client = people("moderator")
    client.post("/console/sign-out", data={"form": form_of(client.get("/console"))})
    assert client.get("/console").status_code == 401


def test_tokens_are_not_guessed_fast(people):
    client = people(None)
    tried = [client.post("/console/sign-in", data={"token": "x"}).status_code for _ in range(25)]
    assert tried[0] == 401
    assert tried[-1] == 429


def test_a_picture_is_shown_to_who_may_see_its_image(people):
    client = people("moderator")
    name = f"{BLOCKED}-0-5.png"
    assert client.get(f"/console/picture/{BLOCKED}/{name}").headers["content-type"] == "image/png"
    assert people("moderator", tenant="globex").get(f"/console/picture/{BLOCKED}/{name}").status_code == 404


def test_an_auditor_is_shown_no_picture(people):
    assert people("auditor").get(f"/console/picture/{BLOCKED}/{BLOCKED}-0-5.png").status_code == 403


def test_an_encrypted_picture_is_shown_with_its_key_alone(log, people, tmp_path, monkeypatch):
    make_key(tmp_path / "key")
    monkeypatch.setenv("DNP_GUARD_PICTURE_KEY", str(tmp_path / "key"))
    write(log, "9" * 32, "blocked", probability=0.9, key=read_key())
    people.app.state.console.refresh()
    client, path = people("moderator"), f"/console/picture/{'9' * 32}/{'9' * 32}-0-5.sealed"
    with_key = client.get(path)
    monkeypatch.delenv("DNP_GUARD_PICTURE_KEY")
    assert with_key.content[:4] == b"\x89PNG"
    assert client.get(path).status_code == 409


@pytest.mark.parametrize("name", ["..%2Faudit.jsonl", "audit.jsonl", f"{STEERED}-0-5.png"])
def test_only_pictures_that_the_record_names_are_served(name, people):
    assert people("moderator").get(f"/console/picture/{BLOCKED}/{name}").status_code == 404


def test_a_large_form_is_refused(people):
    link = appeal_link(people("moderator"), BLOCKED)
    assert people(None).post(link, data={"text": "x" * 100_000}).status_code == 413


def test_signed_tokens_end_and_serve_one_purpose():
    now = [0.0]
    keys = Keyring(b"k" * 32, lambda: now[0])
    cookie, appeal = keys.cookie("a" * 64), keys.appeal("r1", 2)
    assert keys.grant(cookie) == "a" * 64
    assert keys.appealed(appeal) == ("r1", 2)
    assert keys.grant(appeal) is None
    assert keys.appealed(cookie) is None
    now[0] = max(SIGNED_IN_S, APPEAL_S) + 1
    assert keys.grant(cookie) is None
    assert keys.appealed(appeal) is None


@pytest.mark.parametrize("sealed", ["", ".", "e30.00", "\u00e9.\u00e9", "a" * 5000])
def test_a_made_up_token_is_none(sealed):
    keys = Keyring(b"k" * 32, lambda: 0.0)
    assert keys.grant(sealed) is None
    assert keys.appealed(sealed) is None


@pytest.mark.parametrize(("audit", "hint"), [((), "Add --audit"), (("a.jsonl",), "--role moderator")])
def test_a_console_that_nobody_could_use_is_refused(audit, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "looks.json").write_text("{}")
    with pytest.raises(DnpGuardError) as refused:
        create(Settings(policy="glyphs", vlm="scripted:looks.json", audit=audit, console=True))
    assert hint in refused.value.hint
