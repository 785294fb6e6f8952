from __future__ import annotations

import threading

import pytest

from dnp_guard import DnpGuardError, Guard, PolicyError
from dnp_guard.audit import MemorySink
from dnp_guard.audit.events import GuardAttached
from dnp_guard.audit.write.outlet import Outlet
from dnp_guard.audit.write.recorder import REQUIRED_WAIT
from dnp_guard.errors import VlmUnavailable
from dnp_guard.policy import Store
from tests.policies import bolt, policy, star
from tests.sampler import finish, start

POLICY = """\
format: 1
name: p
mode: shadow
categories: [{id: star, look_for: [a star], negative: [star], threshold: 0.5}]
"""


class Silent:
    def ask(self, images, questions):
        return [[0.0] * len(questions) for _ in images]


class Elsewhere(Silent):
    name, revision, local, addresses = "elsewhere", "1", False, ("https://models.example/v1",)


def test_policies_that_refuse_the_backend_only_together_refuse_the_guard():
    wide, narrow = (
        policy(name=name, vlm={"allow": ["local", url]})
        for name, url in {"wide": "https://models.example", "narrow": "https://models.example/v1"}.items()
    )
    for selected_policy in (wide, narrow):
        Guard(selected_policy, vlm=Elsewhere()).close()
    with pytest.raises(VlmUnavailable, match=r"vlm\.allow does not list it"):
        Guard(Store((wide, narrow)), vlm=Elsewhere())


class Told(MemorySink):
    """A sink that sets the event ``heard`` when a record about the policy comes after the guard was made."""

    def __init__(self):
        super().__init__()
        self.heard = threading.Event()

    def write(self, event):
        super().write(event)
        if event["event"].startswith("policy.") and len(self.records) > 1:
            self.heard.set()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    return path


def test_a_watched_policy_is_put_in_force_when_its_file_changes(path):
    sink = Told()
    with Guard(path, vlm=Silent(), audit=sink) as guard:
        guard.watch(every=0.01)
        path.write_text(POLICY.replace("0.5", "0.25"))
        assert sink.heard.wait(30)
        assert guard.policy.category("star").threshold == 0.25
    first, last = sink.records[0], sink.records[-1]
    assert first["event"] == "policy.loaded"
    assert first["loaded"] == {"source": str(path)}
    assert last["policy"]["digest"] == guard.policy.digest
    before = first["policy"]["digest"]
    assert last["loaded"] == {"before": before, "source": str(path), "loosened": False}


def test_a_watched_policy_that_breaks_is_rejected_with_its_place(path):
    sink = Told()
    with Guard(path, vlm=Silent(), audit=sink) as guard:
        guard.watch(every=0.01)
        path.write_text(POLICY.replace("threshold", "treshold"))
        assert sink.heard.wait(30)
        assert guard.policy.category("star").threshold == 0.5
    rejected = sink.records[-1]
    assert rejected["event"] == "policy.rejected"
    assert "p.yaml:4:63: unknown key `treshold`. Did you mean `threshold`?" in rejected["reason"]


def test_a_running_generation_keeps_its_policy(path):
    sink = MemorySink()
    with Guard(path, vlm=Silent(), audit=sink) as guard:
        before = guard.policy.digest
        driver = start(guard)
        path.write_text(POLICY.replace("0.5", "0.25"))
        assert guard.reload()
        finish(driver)
        assert driver.report.digest == before != guard.policy.digest


def test_after_a_reload_records_are_waited_for_as_the_new_policy_says(path, monkeypatch):
    waited = []
    wait = Outlet.wait
    monkeypatch.setattr(Outlet, "wait", lambda self, number, most: waited.append(most) or wait(self, number, most))
    with Guard(path, vlm=Silent(), audit=MemorySink()) as guard:
        path.write_text(POLICY + "audit: {required: true}\n")
        assert guard.reload()
        assert max(waited) >= REQUIRED_WAIT
        waited.clear()
        guard.noted(GuardAttached(host={}))
        start(guard)
        assert waited.count(REQUIRED_WAIT) == 2
        path.write_text(POLICY)
        waited.clear()
        assert guard.reload()
        assert REQUIRED_WAIT not in waited


def test_a_policy_given_as_a_value_cannot_be_watched():
    with Guard(policy(), vlm=Silent()) as guard, pytest.raises(DnpGuardError, match="cannot be watched"):
        guard.watch()


def test_a_folder_of_policies_is_a_store(path):
    path.with_name("acme.yaml").write_text(POLICY.replace("name: p", "name: acme\nselect: {tenants: [acme]}"))
    with Guard(path.parent, vlm=Silent(), tenant="acme") as guard:
        assert guard.policy.name == "acme"


def test_nobody_is_served_whom_no_policy_is_for(path):
    path.write_text(POLICY + "select: {tenants: [acme]}\n")
    with pytest.raises(PolicyError, match="no policy for tenant 'other'"):
        Guard(path.parent, vlm=Silent(), tenant="other")


def test_a_tightened_block_ends_and_nests():
    harsh, harsher = (policy(categories=[star(threshold=threshold), bolt()]) for threshold in (0.3, 0.1))
    seen = []
    with Guard(policy(), vlm=Silent()) as guard:
        with guard.tightened(harsh):
            with guard.tightened(harsher):
                seen.append(guard.policy.category("star").threshold)
            seen.append(guard.policy.category("star").threshold)
        seen.append(guard.policy.category("star").threshold)
    assert seen == [0.1, 0.3, 0.5]


def test_another_thread_is_not_tightened_by_this_ones_block():
    events = []
    with Guard(policy(), vlm=Silent()) as guard, guard.tightened(policy(categories=[star(threshold=0.1), bolt()])):
        thread = threading.Thread(target=lambda: events.append(guard.policy.category("star").threshold))
        thread.start()
        thread.join()
    assert events == [0.5]


def test_what_a_reload_refuses_and_would_refuse_is_told_on_the_console(path, caplog):
    path.write_text(POLICY.replace("mode: shadow", "mode: enforce"))
    with Guard(path, vlm=Silent()) as guard:
        guard.watch(every=60)
        path.write_text(POLICY.replace("threshold", "treshold"))
        assert not guard.reload()
    messages = [record.getMessage() for record in caplog.records if record.name == "dnp_guard.in_force"]
    assert any("a reload will refuse this" in line and "has no tests" in line for line in messages)
    assert any("a policy was not put in force" in line and "unknown key `treshold`" in line for line in messages)
