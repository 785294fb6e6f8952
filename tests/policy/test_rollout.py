from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dnp_guard import Guard
from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.policy import Store, as_store, load_policy
from dnp_guard.policy.force.approvals import approve
from dnp_guard.policy.force.rollout import Narrowing, Origin, Rollout
from dnp_guard.policy.force.signing import new_key, sign, verifier
from dnp_guard.vlm import ScriptedBackend
from tests.policies import bolt, policy, star

POLICY = """\
format: 1
name: p
revision: "1"
categories: [{id: star, look_for: [a star], negative: [star], threshold: 0.5}]
"""
TESTS = """\
format: 1
policy: ../p.yaml
cases: [{name: A sure star is steered away, looks: [{a star: 0.9}], expect: {decision: steered}}]
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "p.test.yaml").write_text(TESTS)
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    return path


def admit_all(policy):
    """Accept every policy: a check for a rollout that never raises."""


def rollout(source, tenant=None, **arguments):
    return Rollout(source, as_store(source), tenant, **{"admit": admit_all, "view": None, **arguments})


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def rejected():
    def rejected(rollout):
        before = rollout.current()
        with pytest.raises(PolicyError) as caught:
            rollout.reload()
        assert rollout.current() is before
        return [problem.code for problem in caught.value.problems]

    return rejected


def test_a_changed_policy_that_passes_its_tests_is_put_in_force(path):
    of = rollout(path)
    edit(path, "0.5", "0.4")
    assert of.reload()
    assert of.current() == load_policy(path)


@pytest.mark.parametrize(("revision", "doubts"), [("1", ["`p` 1"]), ("2", [])])
def test_another_text_under_the_same_revision_is_told(path, revision, doubts):
    of = rollout(path)
    assert of.doubt is None
    edit(path, 'revision: "1"', f'revision: "{revision}"')
    edit(path, "0.5", "0.4")
    assert of.reload()
    assert [doubt in (of.doubt or "") for doubt in doubts] == [True] * len(doubts)
    assert (of.doubt is None) == (doubts == [])


def test_an_unchanged_policy_is_not_put_in_force_again(path):
    of = rollout(path)
    before = of.current()
    assert not of.reload()
    assert of.current() is before


def test_a_changed_base_is_a_change(path):
    base = path.with_name("base.yaml")
    path.rename(base)
    path.write_text("format: 1\nname: over\nextends: base.yaml\n")
    of = rollout(path)
    edit(base, "0.5", "0.4")
    assert of.reload()
    assert of.current().category("star").threshold == 0.4


def test_a_broken_policy_leaves_the_last_good_one(path, rejected):
    of = rollout(path)
    edit(path, "threshold", "treshold")
    assert rejected(of) == ["unknown-key"]


def test_a_policy_that_fails_its_tests_is_rejected(path, rejected):
    of = rollout(path)
    edit(path, "threshold: 0.5", "threshold: 0.5, action: block")
    edit(path.parent / "tests" / "p.test.yaml", "0.9}]", "0.3}]")
    assert rejected(of) == ["case-failed"]


def test_an_enforced_policy_without_tests_is_rejected(path, rejected):
    of = rollout(path)
    (path.parent / "tests" / "p.test.yaml").unlink()
    edit(path, "0.5", "0.4")
    assert rejected(of) == ["untested"]


def test_a_policy_in_shadow_needs_no_tests(path):
    edit(path, "name: p", "name: p\nmode: shadow")
    of = rollout(path)
    (path.parent / "tests" / "p.test.yaml").unlink()
    edit(path, "0.5", "0.6")
    assert of.reload()


@pytest.mark.parametrize(
    "change", [("0.5", "0.6"), ("name: p", "name: p\nmode: shadow"), ("a star]", "a star, a nova]")]
)
def test_only_what_is_no_milder_goes_without_approval(path, rejected, change):
    of = rollout(path)
    edit(path, *change)
    if "nova" in change[1]:
        assert of.reload()
    else:
        assert rejected(of) == ["unapproved"]


def test_an_approval_is_of_one_text_only(path, rejected):
    of = rollout(path)
    edit(path, "0.5", "0.6")
    approve(path, load_policy(path), by="A. Person", reason="Too many false alarms.")
    edit(path, "0.6", "0.7")
    assert rejected(of) == ["unapproved"]


def test_a_policy_that_is_gone_from_a_store_is_rejected(path, rejected):
    other = path.with_name("q.yaml")
    other.write_text(POLICY.replace("name: p", "name: q"))
    (path.parent / "tests" / "q.test.yaml").write_text(TESTS.replace("/p.", "/q."))
    of = rollout(path.parent)
    other.unlink()
    assert rejected(of) == ["unapproved"]


def test_a_policy_that_the_guard_cannot_do_is_rejected(path):
    def admit(policy):
        if policy.guidance.mode == "replace":
            raise DnpGuardError("cannot")

    of = rollout(path, admit=admit)
    edit(path, "name: p", "name: p\nguidance: {mode: replace}")
    with pytest.raises(DnpGuardError, match="cannot"):
        of.reload()
    assert of.current().guidance.mode == "separate"


def test_policies_that_the_guard_cannot_do_together_are_rejected(path):
    def admit(policy):
        if policy.queries.max_questions == 7 and len(policy.categories) > 1:
            raise DnpGuardError("cannot")

    of = rollout(path.parent, admit=admit)
    (path.parent / "q.yaml").write_text(POLICY.replace("name: p", "name: q").replace("id: star", "id: bolt"))
    (path.parent / "tests" / "q.test.yaml").write_text(TESTS.replace("p.yaml", "q.yaml"))
    edit(path, "name: p", "name: p\nqueries: {max_questions: 7}")
    with pytest.raises(DnpGuardError, match="cannot"):
        of.reload()
    assert len(of.current().categories) == 1


LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def signed(path, tmp_path, monkeypatch):
    """Return a function that signs the policy file with a serial number, and returns a rollout that checks it."""
    monkeypatch.setenv("DNP_GUARD_SERIALS", str(tmp_path / "serials.json"))
    private, public = new_key()

    def signed(serial, of=None, **arguments):
        sign(path, as_store(path), private, serial=serial, expires=arguments.pop("expires", LATER))
        return of or rollout(path, verify=verifier(public, None), **arguments)

    return signed


def test_no_serial_is_used_up_by_a_policy_that_is_rejected_for_its_tests(path, rejected, signed):
    of = signed(1)
    edit(path, "threshold: 0.5", "threshold: 0.5, action: block")
    edit(path.parent / "tests" / "p.test.yaml", "0.9}]", "0.3}]")
    signed(2, of)
    assert rejected(of) == ["case-failed"]
    edit(path.parent / "tests" / "p.test.yaml", "0.3}]", "0.9}]")
    edit(path, "action: block", "action: steer, severity: high")
    signed(2, of)
    assert of.reload()
    assert of.origin.serial == 2


def test_a_serial_that_records_tell_of_holds_where_the_file_that_kept_it_was_removed(path, tmp_path, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_SERIALS", str(tmp_path / "serials.json"))
    (private, public), log = new_key(), tmp_path / "audit.jsonl"
    sign(path, as_store(path), private, serial=5, expires=LATER)
    with Guard(path, vlm=ScriptedBackend({}), audit=log, require_signature=public):
        pass
    (tmp_path / "serials.json").unlink()
    sign(path, as_store(path), private, serial=4, expires=LATER)
    with pytest.raises(PolicyError, match="serial 4 is lower than 5"):
        Guard(path, vlm=ScriptedBackend({}), audit=f"jsonl:{log}", require_signature=public)
    Guard(path, vlm=ScriptedBackend({}), audit=tmp_path / "other.jsonl", require_signature=public).close()


def test_a_text_whose_signature_was_tampered_with_is_rejected_for_that_and_not_for_its_tests(path, rejected, signed):
    of = signed(1)
    edit(path, "threshold: 0.5", "threshold: 0.95")
    assert rejected(of) == ["altered"]


def test_a_signature_that_ends_while_the_guard_runs_ends_what_it_guards(signed):
    clock = {"now": datetime(2099, 1, 1, tzinfo=UTC)}
    of = signed(1, clock=lambda: clock["now"])
    assert of.current().name == "p"
    clock["now"] = LATER
    with pytest.raises(PolicyError, match="the signature of the policy in force ended at 2100-01-01"):
        of.current()
    assert of.current(expired=True).name == "p"


def test_policies_that_a_reload_would_refuse_for_want_of_tests_are_named(path):
    assert rollout(path).untested() == []
    (path.parent / "tests" / "p.test.yaml").unlink()
    assert [problem.code for problem in rollout(path).untested()] == ["untested"]


def test_at_first_nothing_was_before(path):
    assert rollout(path).origin == Origin(source=str(path))


def test_a_policy_given_as_a_value_has_no_source():
    assert rollout(policy()).origin == Origin()


def test_a_reload_that_tightens_has_loosened_nothing(path):
    of = rollout(path)
    before = of.current().digest
    edit(path, "0.5", "0.4")
    assert of.reload()
    assert of.origin == Origin(before=before, source=str(path), loosened=False)


def test_an_approved_loosening_is_put_in_force_and_names_its_approver_and_why(path):
    of = rollout(path)
    before = of.current().digest
    edit(path, "0.5", "0.6")
    approve(path, load_policy(path), by="A. Person", reason="Too many false alarms.")
    assert of.reload()
    assert of.origin == Origin(
        before=before, source=str(path), approver="A. Person", reason="Too many false alarms.", loosened=True
    )


def test_a_rejected_policy_leaves_the_origin_of_what_stays(path, rejected):
    of = rollout(path)
    origin = of.origin
    edit(path, "0.5", "0.6")
    assert rejected(of) == ["unapproved"]
    assert of.origin is origin


def test_the_approval_of_a_policy_that_has_not_changed_is_not_told_again(path):
    other = path.with_name("q.yaml")
    other.write_text(POLICY.replace("name: p", "name: q"))
    (path.parent / "tests" / "q.test.yaml").write_text(TESTS.replace("/p.", "/q."))
    approve(path, load_policy(path), by="A. Person", reason="r")
    of = rollout(path.parent)
    first = of.origin.approver
    edit(other, "0.5", "0.4")
    assert of.reload()
    assert first == "A. Person"
    assert of.origin.approver is None


def test_a_signed_policy_names_its_signer_serial_and_author(path, tmp_path, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_SERIALS", str(tmp_path / "serials.json"))
    private, public = new_key()
    ends = datetime(2100, 1, 1, tzinfo=UTC)
    sign(path, as_store(path), private, serial=3, expires=ends, author="B. Writer")
    of = rollout(path, verify=verifier(public, None))
    assert of.origin == Origin(source=str(path), signer=public, serial=3, author="B. Writer")
    before = of.current().digest
    edit(path, "0.5", "0.6")
    sign(path, as_store(path), private, serial=4, expires=ends)
    assert of.reload()
    assert of.origin == Origin(before=before, source=str(path), signer=public, serial=4, loosened=True)


def test_a_call_can_only_tighten():
    of = rollout(policy(categories=[star(threshold=0.5)]))
    mild, harsh = (policy(categories=[star(threshold=threshold)]) for threshold in (0.9, 0.2))
    assert of.current(Narrowing((mild,))).category("star").threshold == 0.5
    assert of.current(Narrowing((harsh,))).category("star").threshold == 0.2


def test_a_region_of_a_call_adds_the_policies_of_that_region():
    store = Store((policy(), policy(name="eu", select={"regions": ["eu"]}, categories=[star(threshold=0.1), bolt()])))
    of = rollout(store)
    assert of.current().category("star").threshold == 0.5
    assert of.current(Narrowing(region="eu")).category("star").threshold == 0.1
    assert of.current(Narrowing(region="atlantis")).category("star").threshold == 0.5


def test_an_exception_reverts_by_itself_between_generations():
    now = [datetime(2027, 1, 1, tzinfo=UTC)]
    exception = {
        "category": "star",
        "set": {"threshold": 0.9},
        "until": "2027-01-02T00:00:00Z",
        "reason": "r",
        "approved_by": "a",
    }
    of = rollout(policy(exceptions=[exception]), clock=lambda: now[0])
    assert of.current().category("star").threshold == 0.9
    now[0] += timedelta(days=1)
    assert of.current().category("star").threshold == 0.5


def test_the_same_selection_is_made_once():
    of = rollout(policy())
    assert of.current() is of.current()


def test_a_tenant_whom_no_policy_is_for_is_an_error():
    with pytest.raises(PolicyError, match="no policy for tenant 'other'"):
        rollout(policy(select={"tenants": ["acme"]}), "other")
