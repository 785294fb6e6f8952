"""The extension's modules that need no host work, and all its modules keep rules such as which packages they import."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.answers import HIDDEN, UNANSWERED, Answers
from tests.hosts.a1111_host import EXTENSION, Host

PACKAGE = "dnp_guard_extension"


@pytest.fixture(scope="module")
def parts():
    """Yield the extension's modules that import nothing from a host."""
    sys.path.insert(0, str(EXTENSION))
    try:
        names = ("batch", "client", "pictures", "service", "settings", "words")
        yield SimpleNamespace(**{name: importlib.import_module(f"{PACKAGE}.{name}") for name in names})
    finally:
        sys.path.remove(str(EXTENSION))
        for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
            del sys.modules[name]


def sources():
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in sorted(EXTENSION.rglob("*.py"))]


def test_it_imports_the_standard_library_and_what_the_host_gives_and_nothing_else():
    allowed = set(sys.stdlib_module_names) | {PACKAGE, "torch", "PIL", "gradio", "modules"}
    allowed |= {"backend", "ldm_patched", "modules_forge"}  # modules of Forge and of reForge
    imported = set()
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    assert imported <= allowed


def test_it_is_written_for_the_hosts_python():
    for file, _ in sources():
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_the_hosts_loader_finds_one_script():
    with Host() as host:
        assert [script.title() for script in host.scripts] == ["DNP Guard"]


@given(st.text(alphabet="ab ()[]\\:<>,AND BREAK", max_size=40))
def test_words_have_no_meaning_in_the_prompt_language(words_module, text):
    literal = words_module.literal(text)
    bare = literal.replace("\\\\", "").replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
    assert not set(bare) & set("\\()[]<>")
    assert not {"AND", "BREAK"} & set(literal.replace(",", " ").replace(":", " ").split())


@pytest.fixture(scope="module")
def words_module(parts):
    return parts.words


def test_the_guards_words_come_before_the_users(parts):
    assert parts.words.unconditional("exposed (breasts)", "ugly, [a:b:3]") == "exposed \\(breasts\\), ugly, [a:b:3]"
    assert parts.words.unconditional("star", " ") == "star"


@pytest.mark.parametrize(("step", "text"), [(0, "a"), (5, "a"), (6, "b"), (40, "b")])
def test_prompt_editing_changes_after_its_step(parts, step, text):
    assert parts.words.at_step([[[5, "a"], [20, "b"]]], step) == [text]


@pytest.mark.parametrize(
    "text", ['{"start": 5}', '{"decoder": []}', '{"token_file": 5}', '{"token_file": "DIRECTORY/token"}']
)
def test_settings_of_the_wrong_kind_close_a_job(text, tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    (tmp_path / "dnp_guard.json").write_text(text.replace("DIRECTORY", str(tmp_path)), encoding="utf-8")
    with Host():
        guarding = sys.modules[f"{PACKAGE}.guarding"].Guarding(tmp_path)
        p = SimpleNamespace(extra_generation_params={}, batch_size=1, n_iter=1)
        guarding.begin(p, ())
        job = guarding.job(p)
        assert job is not None
        assert guarding.status()["trouble"]
        assert guarding.defaults().on_failure == "closed"


def options(**values):
    return SimpleNamespace(**{f"dnp_guard_{name}": value for name, value in values.items()})


def test_the_environment_comes_before_the_file_and_the_file_before_the_page(parts, tmp_path):
    (tmp_path / "dnp_guard.json").write_text('{"on_failure": "open", "locked": true}', encoding="utf-8")
    page = options(url="http://page", on_failure="closed")
    settings = parts.settings.load(tmp_path, page, {"DNP_GUARD_URL": "http://environment"})
    assert settings.url == "http://environment"
    assert settings.on_failure == "open"


def test_the_page_counts_where_nothing_locks_it(parts, tmp_path):
    (tmp_path / "dnp_guard.json").write_text('{"locked": false}', encoding="utf-8")
    assert parts.settings.load(tmp_path, options(url="http://page"), {}).url == "http://page"
    (tmp_path / "dnp_guard.json").unlink()
    assert parts.settings.load(tmp_path, options(url="http://page"), {}).url == "http://page"


def test_the_token_is_read_from_its_file_and_shown_nowhere(parts, tmp_path):
    (tmp_path / "token").write_text("abc\n", encoding="utf-8")
    settings = parts.settings.load(tmp_path, options(), {"DNP_GUARD_TOKEN_FILE": str(tmp_path / "token")})
    assert settings.token == "abc"
    assert "abc" not in repr(settings)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"unknown": 1}', '{"url": "file:///etc/passwd"}', '{"on_failure": "sometimes"}']
)
def test_a_file_that_cannot_be_used_is_refused(parts, tmp_path, text):
    (tmp_path / "dnp_guard.json").write_text(text, encoding="utf-8")
    with pytest.raises(parts.settings.BadSettings, match=r"dnp_guard\.json"):
        parts.settings.load(tmp_path, options(), {})


@pytest.mark.parametrize("arguments", [(), (None, None), (False, ""), (False, "strict"), ("off", 3)])
def test_what_a_program_asks_for_never_loosens(parts, arguments):
    settings = parts.settings.Settings(locked=False)
    asked = parts.settings.asked(settings, arguments, is_api=True)
    assert asked.enabled
    assert asked.url == settings.url
    assert asked.on_failure == settings.on_failure


def test_the_operators_policy_is_not_replaced(parts):
    asked = parts.settings.asked(parts.settings.Settings(policy="theirs"), (True, "mine"), is_api=True)
    assert asked.policy == "theirs"


@pytest.mark.parametrize(
    ("on_failure", "answered", "closes"),
    [("closed", True, True), ("open", False, False), ("last", True, False), ("last", False, True)],
)
def test_a_failure_that_nothing_made_up_for(parts, on_failure, answered, closes):
    assert parts.batch.closes(on_failure, answered=answered) is closes


@pytest.mark.parametrize("action", ["block", "anything else", ""])
def test_what_is_not_let_pass_is_withheld(parts, action):
    picture = Image.new("RGB", (4, 2), "red")
    assert parts.pictures.acted(picture, action).getcolors() == [(8, (128, 128, 128))]
    assert parts.pictures.acted(picture, "pass") is picture


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("service_down: Connection refused", "could not be checked (the guard service does not answer)"),
        ("the settings of DNP Guard cannot be used", "could not be checked"),
    ],
)
def test_a_picture_that_could_not_be_checked_says_why(parts, failure, words):
    assert parts.pictures.unchecked(failure).endswith(words)


OPENED = {
    "session": "f" * 32,
    "due": [1],
    "due_progress": [0.1],
    "mode": "enforce",
    "on_failure": "closed",
    "deadline_ms": None,
    "user_previews": "withhold",
    "skip_similar": None,
}


def opened(parts, client):
    return client.start(host={"name": "tests"}, run={}, prompts=["a"], steps=4, policy="")


@pytest.mark.parametrize(
    ("status", "body", "reason", "caused"),
    [
        (422, b'{"detail": "too many"}', "request_refused", True),
        (403, b'{"detail": "not for you"}', "request_refused", True),
        (404, b"", "request_refused", True),
        (307, b"", "request_refused", True),
        (401, b'{"title": "token"}', "service_refused", False),
        (429, b"", "service_refused", False),
        (500, b"<html>", "service_refused", False),
        (201, b"<html>", "bad_answer", False),
        (201, b"[]", "bad_answer", False),
        (201, json.dumps({**OPENED, "session": ""}).encode(), "bad_answer", False),
        (201, json.dumps({**OPENED, "due": "never"}).encode(), "bad_answer", False),
        (201, json.dumps({**OPENED, "deadline_ms": {}}).encode(), "bad_answer", False),
    ],
)
def test_an_answer_that_is_none_is_a_failure_that_says_whose(parts, status, body, reason, caused):
    with Answers(status, body) as service, pytest.raises(parts.client.ServiceFailed) as failure:
        opened(parts, parts.client.Client(service.url, "secret"))
    assert failure.value.reason == reason
    assert failure.value.request_caused == caused
    assert len(service.asked) == 1
    assert service.asked[0][1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "images",
    [
        [],
        [{"index": 1, "negative": None, "scale": None, "mode": "separate"}],
        [{"index": 0, "negative": 3, "scale": None, "mode": "separate"}],
        [{"index": 0, "scale": None, "mode": "separate"}],
    ],
)
def test_an_answer_that_does_not_speak_of_every_image_is_none(parts, images):
    client = parts.client
    session = client.Session("f" * 32, (1,), (), "enforce", None, "closed", 5.0, "withhold")
    body = json.dumps({"answered": True, "images": images}).encode()
    with Answers(200, body) as service, pytest.raises(client.ServiceFailed) as failure:
        client.Client(service.url, None).query(session, step=1, progress=0.5, sigma=None, pictures=["data:"])
    assert failure.value.reason == "bad_answer"


def test_pictures_go_to_no_proxy(parts, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Answers(201, json.dumps(OPENED).encode()) as service:
        assert opened(parts, parts.client.Client(service.url, None)).due == (1,)


SMALL = Image.new("RGB", (8, 8))


def batch_of(parts, due, images=1, brought=None):
    batch = parts.batch.Batch(SimpleNamespace(), parts.settings.Settings(), ["a"] * images, {}, brought=brought)
    batch.session = parts.client.Session("f" * 32, due, (0.2, 0.6), "enforce", None, "closed", 5.0, "withhold")
    return batch


@given(due=st.sets(st.integers(0, 30), min_size=1), total=st.integers(31, 40))
def test_every_due_step_is_asked_at_once_and_no_other(parts, due, total):
    batch = batch_of(parts, tuple(sorted(due)))
    batch.client.query = lambda *_, **__: parts.client.Answer(True, (None,), "separate")
    asked = []
    for step in range(total):
        if batch.due(step, 0.0):
            asked.append(step)
            batch.look(step, 0.0, None, [SMALL])
    assert asked == sorted(due)
    assert not batch.owes_a_look()


def test_where_steps_are_unknown_progress_decides(parts):
    batch = batch_of(parts, None)
    batch.client.query = lambda *_, **__: parts.client.Answer(True, (None,), "separate")
    asked = []
    for step, progress in enumerate((0.1, 0.25, 0.3, 0.7, 0.9)):
        if batch.due(step, progress):
            asked.append(step)
            batch.look(step, progress, None, [SMALL])
    assert asked == [1, 3]


def test_a_missed_look_is_asked_again_at_the_next_step_and_holds_what_held(parts):
    batch = batch_of(parts, (1, 9))
    star = parts.client.Negative("star", 6.0, "separate")
    batch.negatives[:] = [star]
    batch.client.query = lambda *_, **__: (_ for _ in ()).throw(parts.client.ServiceFailed("service_down", "gone"))
    batch.look(1, 0.1, None, [SMALL])
    assert batch.due(2, 0.2)
    assert batch.negatives == [star]
    assert not batch.closed


@pytest.mark.parametrize(
    ("on_failure", "mode", "closed"),
    [("closed", "enforce", True), ("open", "enforce", False), ("last", "enforce", True), ("closed", "shadow", False)],
)
def test_a_run_goes_on_after_looks_in_vain_unless_they_close_it(parts, on_failure, mode, closed):
    batch = batch_of(parts, (1, 9))
    batch.session = dataclasses.replace(batch.session, on_failure=on_failure, mode=mode)
    batch.client.query = lambda *_, **__: (_ for _ in ()).throw(parts.client.ServiceFailed("service_down", "gone"))
    for step in (1, 2):
        batch.look(step, 0.1, None, [SMALL])
    before = batch.closed
    batch.look(3, 0.3, None, [SMALL])
    assert not before
    assert batch.closed == closed


@pytest.mark.parametrize(("looks", "closed"), [(2, False), (3, True)])
def test_looks_that_the_host_cannot_make_do_not_count_as_silence_of_the_service(parts, looks, closed):
    batch = batch_of(parts, (1, 9))
    batch.client.query = lambda *_, **__: (_ for _ in ()).throw(parts.client.ServiceFailed("service_down", "gone"))
    for step in range(1, looks + 1):
        batch.missed(OSError("the prediction cannot be shown"))
        batch.look(step, 0.1, None, [SMALL])
    assert batch.closed == closed


def test_a_look_that_follows_lost_ones_says_so_to_a_service_that_knows_of_it(parts):
    answer = {"answered": True, "images": [{"index": 0, "negative": None, "mode": "separate"}]}
    batch, requests = batch_of(parts, None), []
    for features in (["ended"], []):
        with Answers(200, json.dumps({**answer, "features": features}).encode()) as service:
            batch.client = parts.client.Client(service.url, None)
            batch.missed(OSError("the prediction cannot be shown"))
            batch.due(4, 0.4)
            batch.due(5, 0.5)
            batch.look(5, 0.5, None, [SMALL])
            requests.append({key: body for key, body in service.asked[-1][2].items() if key in {"failed", "since"}})
    assert requests == [{"failed": True, "since": 0.4}, {}]


@pytest.mark.parametrize(
    ("response", "judges"), [({"digest": "d", "backend": "b"}, "d b"), ({"digest": "d"}, "d"), ({}, "")]
)
def test_what_judges_is_the_policy_and_the_model_as_far_as_the_service_says(parts, response, judges):
    with Answers(200, json.dumps({"features": ["policy"], **response}).encode()) as service:
        assert parts.client.Client(service.url, None).judges("") == judges


def test_a_busy_service_still_says_what_it_knows(parts):
    with Answers(503, b'{"detail": "busy", "features": ["inputs"]}') as service:
        assert parts.client.Client(service.url, None).features() == ("inputs",)


@pytest.mark.parametrize(("status", "body"), UNANSWERED)
def test_a_session_that_wants_features_is_not_opened_where_a_problem_lists_none(parts, status, body):
    with Answers(status, body) as service:
        client = parts.client.Client(service.url, None)
        with pytest.raises(parts.client.ServiceFailed, match=str(status)):
            client.start(host={}, run={}, prompts=["a"], steps=4, policy="", brings=True)
    assert [path for path, *_ in service.asked] == ["/readyz"]


@pytest.mark.parametrize(("kind", "caused"), [("busy", False), ("over", True)])
def test_a_request_is_not_at_fault_for_a_busy_service(parts, kind, caused):
    with Answers(409, json.dumps({"type": f"urn:dnp-guard:problem:{kind}"}).encode()) as service:
        with pytest.raises(parts.client.ServiceFailed) as failed:
            parts.client.Client(service.url, None).call("POST", "/v1/sessions/s/inputs", {}, 5.0)
        assert failed.value.request_caused == caused


@pytest.mark.parametrize(("status", "body"), HIDDEN)
def test_a_service_whose_list_of_features_a_proxy_hides_has_none(parts, status, body):
    with Answers(status, body) as service, pytest.raises(parts.client.ServiceFailed):
        parts.client.Client(service.url, None).start(
            host={}, run={}, prompts=["a"], steps=4, policy="", attention=True, brings=True
        )
    assert [path for path, *_ in service.asked] == ["/readyz", "/v1/sessions"]
    assert "can" not in service.asked[-1][2]


def test_a_session_that_wants_features_is_not_opened_where_nobody_can_be_asked_for_them(parts, monkeypatch):
    client, asked = parts.client.Client("http://127.0.0.1:9", None), []
    call = client.call
    monkeypatch.setattr(client, "call", lambda method, path, *more: asked.append(path) or call(method, path, *more))
    with pytest.raises(parts.client.ServiceFailed, match="service_down"):
        client.start(host={}, run={}, prompts=["a"], steps=4, policy="", brings=True)
    assert asked == ["/readyz"]


def opened_with_inputs(parts, mode, on_failure, brought=lambda: [[SMALL]]):
    """Open a batch with an input picture about which the service does not answer.

    Args:
        parts: the extension's modules.
        mode: mode of the service's policy, ``enforce`` or ``shadow``.
        on_failure: the policy's choice; the settings have the opposite one, which must not apply.
        brought: returns the input pictures.
    """
    settings = parts.settings.Settings(on_failure="closed" if on_failure == "open" else "open")
    client = SimpleNamespace(abandon=lambda _: None)
    batch = parts.batch.Batch(client, settings, ["a"], {}, brought=brought)
    session = batch_of(parts, (1,)).session
    client.start = lambda **_: dataclasses.replace(session, mode=mode, on_failure=on_failure, asks=True)
    client.inputs = lambda *_: (_ for _ in ()).throw(parts.client.ServiceFailed("service_down", "timed out"))
    with suppress(parts.batch.Withheld):
        batch.open(4)
    return batch


@pytest.mark.parametrize(
    ("mode", "on_failure", "closed"),
    [("enforce", "closed", True), ("enforce", "last", True), ("enforce", "open", False), ("shadow", "closed", False)],
)
def test_an_unanswered_picture_of_the_request_is_decided_by_the_policy(parts, mode, on_failure, closed):
    batch = opened_with_inputs(parts, mode, on_failure)
    assert batch.closed == closed
    assert batch.due(1, 0.5) == (not closed)


@pytest.mark.parametrize(("mode", "closed"), [("enforce", True), ("shadow", False)])
def test_a_picture_that_cannot_be_shown_closes_the_batch_unless_in_shadow(parts, mode, closed):
    batch = opened_with_inputs(parts, mode, "open", brought=lambda: [[None]])
    assert batch.closed == closed
    assert batch.failure == "bad_picture: AttributeError"
    assert batch.due(1, 0.5) == (not closed)


def test_every_frame_of_a_picture_of_the_request_is_shown_to_the_service(parts):
    batch, shown = batch_of(parts, (1,), brought=lambda: [[SMALL, SMALL, SMALL], [SMALL]]), []
    asking, batch.session = dataclasses.replace(batch.session, asks=True), None
    batch.client.start = lambda **_: asking
    batch.client.inputs = lambda _, pictures: shown.extend(pictures) or True
    batch.open(4)
    assert len(shown) == 4


def test_a_picture_of_the_request_is_not_decoded_if_the_policy_does_not_ask(parts):
    batch = batch_of(parts, (1,), brought=lambda: pytest.fail("decoded"))
    opened, batch.session = batch.session, None
    batch.client.start = lambda **_: opened
    batch.open(4)
    assert batch.due(1, 0.5)


def test_a_batch_whose_picture_nobody_answered_about_is_abandoned(parts):
    batch = opened_with_inputs(parts, "enforce", "closed")
    abandoned = []
    batch.client.abandon = abandoned.append
    batch.abandon()
    assert abandoned == [batch.session]


def test_a_user_who_stops_the_workflow_while_its_pictures_are_decoded_is_obeyed(parts):
    stopped = type("InterruptProcessingException", (Exception,), {})
    with pytest.raises(stopped):
        opened_with_inputs(parts, "enforce", "closed", brought=lambda: (_ for _ in ()).throw(stopped))


@pytest.mark.parametrize(("mode", "closed"), [("enforce", True), ("shadow", False)])
def test_a_refused_request_is_withheld_even_if_the_service_dies_before_the_verdict(parts, mode, closed):
    batch = batch_of(parts, (1,), brought=lambda: [[SMALL]])
    asking = dataclasses.replace(batch.session, on_failure="open", mode=mode, asks=True)
    batch.session = None
    batch.client.start = lambda **_: asking
    batch.client.inputs = lambda *_: False
    batch.client.final = lambda *_, **__: (_ for _ in ()).throw(parts.client.ServiceFailed("service_down", "gone"))
    with suppress(parts.batch.Withheld):
        batch.open(4)
    assert (batch.action(0) == "block") == closed


@pytest.mark.parametrize("caused", [True, False])
def test_shadow_withholds_nothing_when_it_fails(parts, caused):
    batch = batch_of(parts, (1,))
    batch.session = dataclasses.replace(batch.session, mode="shadow")
    assert batch.action(0) == "pass"
    batch.failed(parts.client.ServiceFailed("service_down", "gone", request_caused=caused))
    assert batch.action(0) == "pass"
    assert batch.decision(0) == "failed_open"
    assert not batch.closed


@pytest.fixture
def steering():
    with Host() as host:
        yield importlib.import_module(f"{PACKAGE}.steering"), sys.modules[f"{PACKAGE}.client"], host


@pytest.mark.parametrize("ends", ["at its last step", "with an error"])
def test_a_sampler_that_the_host_keeps_is_as_before_after_a_pass(steering, ends):
    class Sampler:
        def callback_state(self, values):
            reported.append(values)

        def launch_sampling(self, steps, func):
            return func()

    def drawing():
        sampler.callback_state({"i": 0})
        assert ends == "at its last step"

    reported, looks, released, sampler = [], [], [], Sampler()
    for _ in range(2):
        steering[0].host.wrap_pass(sampler, looks.append, lambda: released.append(True))
        with suppress(AssertionError):
            sampler.launch_sampling(1, drawing)
    assert vars(sampler) == {}
    assert [len(reported), len(looks), len(released)] == [2, 2, 2]


def test_delta_is_the_equations(steering, monkeypatch):
    module, client, _ = steering
    host = module.host
    noise = torch.Generator().manual_seed(0)
    x, e_u, e_n, guided = (torch.randn(2, 4, 8, 8, generator=noise) for _ in range(4))
    monkeypatch.setattr(host, "evaluate", lambda at, rows, conditioning: e_n[rows])
    monkeypatch.setattr(host, "encode", lambda p, texts: texts)
    sampler = SimpleNamespace(sampler_extra_args={"uncond": [1], "cond_scale": 5.0, "s_min_uncond": 0})
    denoiser = SimpleNamespace(sampler=sampler, p=SimpleNamespace(), step=0, total_steps=9, inner_model=None)
    steering_run = module.Steering([None, client.Negative("star", 3.0, "separate")])
    uncond = torch.zeros(2, 24, 64)
    two = torch.cat([x, x])
    steering_run.before(
        SimpleNamespace(x=two, sigma=torch.ones(4), image_cond=None, text_uncond=uncond, denoiser=denoiser)
    )
    steering_run.answered(SimpleNamespace(x=torch.cat([guided, e_u])))
    after = SimpleNamespace(x=guided)

    steering_run.after(after)

    delta = -3.0 * (e_n[1] - e_u[1])
    torch.testing.assert_close(after.x[1], guided[1] + delta)
    assert torch.equal(after.x[0], guided[0])


def test_what_is_not_painted_is_not_steered(steering, monkeypatch):
    module, client, _ = steering
    monkeypatch.setattr(module.host, "evaluate", lambda at, rows, conditioning: torch.ones(1, 4, 8, 8))
    monkeypatch.setattr(module.host, "encode", lambda p, texts: texts)
    painted = torch.zeros(4, 8, 8)
    painted[:, :, 4:] = 1
    sampler = SimpleNamespace(sampler_extra_args={"uncond": [1], "cond_scale": 5.0})
    denoiser = SimpleNamespace(
        sampler=sampler, p=SimpleNamespace(), step=0, total_steps=9, inner_model=None, mask=1 - painted, nmask=painted
    )
    steering_run = module.Steering([client.Negative("star", 3.0, "separate")])
    x = torch.zeros(2, 4, 8, 8)
    steering_run.before(
        SimpleNamespace(
            x=x, sigma=torch.ones(2), image_cond=None, text_uncond=torch.zeros(1, 24, 64), denoiser=denoiser
        )
    )
    steering_run.answered(SimpleNamespace(x=x))
    after = SimpleNamespace(x=torch.zeros(1, 4, 8, 8))

    steering_run.after(after)

    assert torch.equal(after.x[0], -3.0 * painted)


STAND_IN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def address():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_a_service_is_started_once_and_stopped(parts, address):
    service, client = parts.service.Service(), parts.client.Client(f"http://127.0.0.1:{address}", None)
    command = [sys.executable, "-c", STAND_IN, str(address)]
    try:
        assert service.ensure(client, command, 60)
        first = service.process
        assert service.ensure(client, command, 60)
        assert service.process is first
    finally:
        service.stop()
    assert first.returncode is not None
    assert not client.ready()


def test_a_service_that_is_started_imports_its_own_packages(parts, address, tmp_path, monkeypatch):
    (tmp_path / "http.py").write_text("raise ImportError('the host has one of the same name')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    service, client = parts.service.Service(), parts.client.Client(f"http://127.0.0.1:{address}", None)
    try:
        assert service.ensure(client, [sys.executable, "-c", STAND_IN, str(address)], 60)
    finally:
        service.stop()


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit(3)"], ["/no/such/program"]])
def test_a_service_that_does_not_start_is_not_waited_for(parts, address, command):
    service = parts.service.Service()
    client = parts.client.Client(f"http://127.0.0.1:{address}", None)
    try:
        assert not service.ensure(client, command, 600)
    finally:
        service.stop()


def test_nothing_is_started_where_nobody_said_how(parts, address):
    service = parts.service.Service()
    assert service.ensure(parts.client.Client(f"http://127.0.0.1:{address}", None), [], 600)
    assert service.process is None


def test_installing_installs_nothing():
    source = (EXTENSION / "install.py").read_text(encoding="utf-8")
    assert not {"pip", "launch", "subprocess"} & {
        node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)
    }
    assert not list(Path(EXTENSION).rglob("requirements*.txt"))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda model, x, sigmas, extra_args=None, callback=None: x, 20),
        (lambda model, x, timesteps, extra_args=None, callback=None: x, 19),
        (lambda model, x, sigma_min, sigma_max, extra_args=None, callback=None, order=3: x, None),
        (lambda model, x, sigma_min, sigma_max, n, extra_args=None, callback=None: x, None),
        ("by a name", 20),
    ],
)
def test_steps_are_counted_where_the_sampler_is_given_them(steering, function, expected):
    module, _, _ = steering
    sampler = SimpleNamespace(func=function, model_wrap_cfg=SimpleNamespace(steps=20))
    assert module.host.steps(sampler) == expected


@pytest.mark.parametrize(
    ("uncond", "scale", "goes_on_by_it", "expected"),
    [([1], 5.0, False, True), ([1], 1.0, False, False), ([1], 1.0, True, True), (None, 5.0, True, False)],
)
def test_the_unconditional_counts_with_guidance_or_where_the_sampler_goes_on_by_it(
    steering, uncond, scale, goes_on_by_it, expected
):
    module, _, _ = steering
    sampler = SimpleNamespace(sampler_extra_args={"uncond": uncond, "cond_scale": scale})
    denoiser = SimpleNamespace(sampler=sampler, p=SimpleNamespace(), need_last_noise_uncond=goes_on_by_it)
    assert module.host.counts(denoiser) is expected


def test_the_hosts_padding_changes_nothing_that_is_kept(steering, monkeypatch):
    module, client, _ = steering
    longer = {"crossattn": torch.ones(1, 48, 64), "vector": torch.ones(1, 64)}
    kind = module.host.prompt_parser.DictWithShape
    monkeypatch.setattr(module.host, "encode", lambda p, texts: kind(longer))
    sampler = SimpleNamespace(sampler_extra_args={"uncond": [1], "cond_scale": 5.0})
    p = SimpleNamespace(negative_prompts=[""], steps=9)
    denoiser = SimpleNamespace(sampler=sampler, p=p, step=0, total_steps=9, inner_model=None)
    steering_run = module.Steering([client.Negative("star", None, "replace")])
    shapes = []
    for _ in range(2):
        uncond = kind({"crossattn": torch.zeros(1, 24, 64), "vector": torch.zeros(1, 64)})
        params = SimpleNamespace(
            x=torch.zeros(2, 4, 8, 8), sigma=torch.ones(2), image_cond=None, text_uncond=uncond, denoiser=denoiser
        )
        steering_run.before(params)
        shapes.append(tuple(params.text_uncond.shape))
        params.text_uncond["crossattn"] = params.text_uncond["crossattn"][:, :24]
    assert shapes == [(1, 48, 64)] * 2


@pytest.mark.parametrize("token", ["abc\nabc", "abc abc", "abc\r\nX: abc", "abc\x7f", "éabc"])
def test_a_token_that_no_header_carries_is_refused_by_its_name_alone(parts, tmp_path, token):
    with pytest.raises(parts.settings.BadSettings, match="DNP_GUARD_TOKEN") as refused:
        parts.settings.load(tmp_path, options(), {"DNP_GUARD_TOKEN": token})
    assert "abc" not in str(refused.value)


def test_white_space_around_a_token_is_dropped(parts, tmp_path):
    settings = parts.settings.load(tmp_path, options(), {"DNP_GUARD_TOKEN": "abc\r\n"})
    assert settings.token == "abc"
