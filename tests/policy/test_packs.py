"""Packs, the shipped policies for single kinds of hazard, can be copied and combined with others in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnp_guard.policy import load_policy, load_store, load_tests
from dnp_guard.policy.read.lint import warnings
from dnp_guard.policy.read.loading import load, packs
from dnp_guard.policy.rehearsal.cases import run_tests
from dnp_guard.policy.rehearsal.coverage import coverage

PACKS = packs()


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_checks_and_passes_tests_that_touch_all_of_it(name):
    path = PACKS[name]
    tests = load_tests(path.parent / "tests" / f"{path.stem}.test.yaml")
    ran = run_tests(tests, None)
    assert list(warnings(load(path))) == []
    assert [case.differences for case in ran if not case.passed] == []
    assert coverage(tests.policy, ran).missing == ()


@pytest.mark.parametrize("name", PACKS)
def test_every_category_of_a_pack_says_where_it_belongs_in_a_published_list(name):
    assert {category.taxonomy is None for category in load_policy(PACKS[name]).categories} == {False}


def test_there_is_a_pack_for_each_hazard_that_people_ask_for():
    assert {name.removeprefix("packs/") for name in PACKS} == {
        "art-nudity",
        "brands",
        "drugs",
        "gore",
        "hate",
        "intimate-imagery",
        "minors",
        "public-figures",
        "self-harm",
        "weapons",
    }


def test_packs_are_a_store_when_they_lie_in_one_folder():
    assert len(load_store(Path(PACKS["packs/gore"]).parent).policies) == len(PACKS)


def test_a_pack_can_be_extended_by_a_policy_above_its_folder(tmp_path):
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "gore.yaml").write_bytes(PACKS["packs/gore"].read_bytes())
    ours = tmp_path / "ours.yaml"
    ours.write_text("format: 1\nname: ours\nextends: packs/gore.yaml\ncategories: [{id: gore, threshold: 0.4}]\n")
    assert load_policy(ours).category("gore").threshold == 0.4
