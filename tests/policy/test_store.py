from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import Store, as_store, load_policy, load_store, questions
from tests.policies import bolt, policy, star

NOW = datetime(2027, 1, 1, tzinfo=UTC)
POLICY = "format: 1\nname: {name}\ncategories: [{{id: star, negative: [star], threshold: {threshold}}}]\n"
EXCEPTION = {
    "category": "star",
    "set": {"threshold": 0.9},
    "until": "2027-01-02T00:00:00Z",
    "reason": "A trial.",
    "approved_by": "A. Person",
}


@pytest.fixture
def write(tmp_path):
    def write(name, more="", threshold=0.5):
        (tmp_path / f"{name}.yaml").write_text(POLICY.format(name=name, threshold=threshold) + more)
        return tmp_path

    return write


@pytest.fixture
def problems(tmp_path):
    def problems():
        with pytest.raises(PolicyError) as caught:
            load_store(tmp_path)
        return [(problem.file.rpartition("/")[2], problem.code) for problem in caught.value.problems]

    return problems


def threshold(store, **who):
    return store.select(**who, at=who.pop("at", NOW)).policy.category("star").threshold


def test_a_tenant_gets_the_policy_that_selects_it(write):
    write("everyone", threshold=0.5)
    store = load_store(write("acme", "select: {tenants: [acme]}", threshold=0.3))
    assert threshold(store, tenant="acme") == 0.3
    assert threshold(store, tenant="other") == threshold(store) == 0.5


def test_the_strictest_of_all_that_match_wins(write):
    write("acme", "select: {tenants: [acme]}", threshold=0.3)
    store = load_store(write("eu", "select: {regions: [eu]}", threshold=0.2))
    assert threshold(store, tenant="acme", region="eu") == 0.2


def test_an_unknown_region_gets_the_floor(write):
    write("floor", threshold=0.6)
    store = load_store(write("eu", "select: {regions: [eu]}", threshold=0.2))
    assert threshold(store, region="eu") == 0.2
    assert threshold(store, region="atlantis") == 0.6
    assert store.select(at=NOW).policy.name == "floor"


def test_without_a_floor_someone_whom_no_policy_names_is_an_error(write):
    store = load_store(write("eu", "select: {regions: [eu]}"))
    with pytest.raises(PolicyError, match="no policy for region 'atlantis'"):
        store.select(region="atlantis", at=NOW)


def test_nothing_goes_under_the_floor(write):
    write("floor", threshold=0.4)
    assert threshold(load_store(write("mild", threshold=0.9))) == 0.4


def test_a_locked_category_of_a_base_cannot_be_loosened(write, problems):
    write("floor", "floor: {locked: [star]}", threshold=0.4)
    write("mild", "extends: floor.yaml", threshold=0.9)
    assert problems() == [("mild.yaml", "locked"), ("mild.yaml", "locked")]


def test_the_lock_holds_through_several_bases(write, problems, tmp_path):
    write("floor", "floor: {locked: [star]}", threshold=0.4)
    (tmp_path / "middle.yaml").write_text("format: 1\nname: middle\nextends: floor.yaml\n")
    write("mild", "extends: middle.yaml", threshold=0.9)
    assert set(problems()) == {("mild.yaml", "locked")}


def test_a_locked_category_cannot_be_put_in_shadow_with_its_policy(write, problems, tmp_path):
    write("floor", "floor: {locked: [star]}")
    (tmp_path / "mild.yaml").write_text("format: 1\nname: mild\nextends: floor.yaml\nmode: shadow\n")
    assert problems() == [("mild.yaml", "locked")]


def test_a_locked_category_may_be_tightened(write):
    write("floor", "floor: {locked: [star]}", threshold=0.4)
    assert threshold(load_store(write("harsh", "extends: floor.yaml", threshold=0.2))) == 0.2


def test_every_problem_of_every_file_is_reported(write, problems):
    write("a", "treshold: 1")
    write("b", "mode: maybe")
    assert problems() == [("a.yaml", "unknown-key"), ("b.yaml", "unknown-value")]


def test_two_policies_of_one_name_are_refused(write, problems, tmp_path):
    write("a")
    (tmp_path / "b.yaml").write_text((tmp_path / "a.yaml").read_text())
    assert problems() == [("b.yaml", "duplicate-policy")]


def test_an_exception_holds_until_its_time_and_then_reverts_by_itself():
    store = Store((policy(exceptions=[EXCEPTION]),))
    before = store.select(at=NOW)
    assert before.policy.category("star").threshold == 0.9
    assert before.until == NOW + timedelta(days=1)
    after = store.select(at=before.until)
    assert after.policy.category("star").threshold == 0.5
    assert after.until is None
    assert after.policy.digest == policy().digest


def test_an_exceptions_threshold_is_the_final_looks_too_unless_it_says_otherwise():
    changes = ({"threshold": 0.8}, {"threshold": 0.8, "final_threshold": 0.6})
    stores = [Store((policy(exceptions=[{**EXCEPTION, "set": change}]),)) for change in changes]
    stars = [store.select(at=NOW).policy.category("star") for store in stores]
    assert [(star.threshold, star.final_threshold) for star in stars] == [(0.8, 0.8), (0.8, 0.6)]


def test_a_shadow_policy_beside_an_enforced_floor_has_its_categories_asked_in_shadow():
    kids = policy(name="kids-game", mode="shadow", categories=[bolt(threshold=0.3)])
    in_force = Store((kids,), policy(name="floor", categories=[star()])).select(at=NOW)
    assert in_force.policy.name == "floor"
    assert in_force.policy.mode == "enforce"
    assert in_force.names == ("kids-game", "floor")
    assert [(category.id, category.mode) for category in in_force.policy.categories] == [
        ("star", "enforce"),
        ("bolt", "shadow"),
    ]
    assert {question.category for question in questions(in_force.policy)} == {"star", "bolt"}


def test_several_policies_go_by_all_their_names():
    store = Store((policy(name="games", revision="3"), policy(name="eu", revision="1")), policy(name="floor"))
    in_force = store.select(at=NOW)
    assert in_force.policy.name == "games-eu"
    assert in_force.policy.revision == "3, 1"
    assert in_force.names == ("games", "eu", "floor")


def test_an_exception_for_a_tenant_is_for_no_other():
    store = Store((policy(exceptions=[{**EXCEPTION, "tenant": "acme"}]),))
    assert threshold(store, tenant="acme") == 0.9
    assert threshold(store, tenant="other") == threshold(store) == 0.5


def test_an_exception_of_one_policy_does_not_loosen_the_floor():
    store = Store((policy(exceptions=[EXCEPTION]),), policy(name="floor"))
    assert threshold(store) == 0.5


@pytest.mark.parametrize("field", ["until", "reason", "approved_by"])
def test_an_exception_says_until_when_why_and_by_whom(field):
    with pytest.raises(ValueError, match=field):
        policy(exceptions=[{key: value for key, value in EXCEPTION.items() if key != field}])


def test_an_exception_ends_in_utc():
    with pytest.raises(ValueError, match="a time in UTC"):
        policy(exceptions=[{**EXCEPTION, "until": "2027-01-02T00:00:00+02:00"}])


def test_nothing_is_excepted_of_a_sensitive_or_locked_category():
    sensitive = star(sensitive=True, action="block", still_present="block")
    with pytest.raises(ValueError, match="sensitive category `star` permits no exception"):
        policy(categories=[sensitive, bolt()], exceptions=[EXCEPTION])
    with pytest.raises(ValueError, match="locked category `star` permits no exception"):
        policy(floor={"locked": ["star"]}, exceptions=[EXCEPTION])


def test_an_exception_that_leaves_no_valid_policy_is_reported_at_its_place(write):
    more = """\
exceptions:
  - {category: star, set: {still_present: monitor}, until: 2027-01-01T00:00:00Z, reason: r, approved_by: a}
"""
    folder = write("a", more)
    path = folder / "a.yaml"
    path.write_text(path.read_text().replace("threshold: 0.5", "severity: critical"))
    with pytest.raises(PolicyError, match=r"a\.yaml:5:5: not a valid policy: a critical category requires"):
        as_store(path)


def test_a_policy_with_roll_out_keys_reads_back_the_same(write):
    of = policy(exceptions=[EXCEPTION], select={"regions": ["eu"]}, floor={"locked": ["bolt"]})
    assert type(of).model_validate(of.resolved()) == of


def test_no_folder_of_the_working_directory_takes_the_place_of_a_shipped_name(tmp_path, monkeypatch):
    (tmp_path / "default").mkdir()
    monkeypatch.chdir(tmp_path)
    assert as_store("default").policies == (load_policy("default"),)


def test_a_file_and_a_shipped_name_are_stores_of_one(write):
    assert as_store(write("a") / "a.yaml").policies[0].name == "a"
    assert as_store("default").policies == (load_policy("default"),)


def test_policies_that_leave_no_backend_in_common_cannot_be_in_force_together():
    store = Store((policy(name="a", vlm={"allow": ["local"]}), policy(name="b", vlm={"allow": ["http://x"]})))
    with pytest.raises(PolicyError, match="policies `a`, `b` cannot be in force together"):
        store.select(at=NOW)
