from __future__ import annotations

import json
import re

import pytest

from dnp_guard import Guard, cli
from dnp_guard.policy import load_policy, load_tests, questions, shipped
from dnp_guard.policy.read.loading import example_store
from dnp_guard.policy.rehearsal.cases import run_tests
from dnp_guard.policy.rehearsal.coverage import coverage
from dnp_guard.server.tokens import Tokens
from dnp_guard.vlm.scripted import ScriptedBackend


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run(["policy", *map(str, args)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_init_writes_a_policy_that_checks_and_whose_tests_pass_and_touch_all_of_it(run, tmp_path):
    assert run("init", tmp_path / "new" / "ours.yaml")[0] == 0
    assert run("check", tmp_path)[0] == 0
    tests = load_tests(tmp_path / "new" / "tests" / "ours.test.yaml")
    ran = run_tests(tests, None)
    assert all(result.passed for result in ran)
    assert coverage(tests.policy, ran).missing == ()


def test_init_leaves_editors_the_schemas_that_its_files_name(run, tmp_path):
    run("init", tmp_path / "ours.yaml")
    assert json.loads((tmp_path / "schema" / "policy.v1.json").read_text())["title"] == "dnp_guard policy, format 1"
    assert "$schema=schema/policy.v1.json" in (tmp_path / "ours.yaml").read_text()


def test_init_overwrites_nothing(run, tmp_path):
    (tmp_path / "ours.yaml").write_text("mine")
    code, _, err = run("init", tmp_path / "ours.yaml")
    assert code == 2
    assert "already exists" in err
    assert (tmp_path / "ours.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["Ours.yaml", "ours.yml", "1.yaml"])
def test_init_refuses_a_name_that_no_policy_can_have(run, tmp_path, name):
    assert run("init", tmp_path / name)[0] == 2


def test_migrate_leaves_a_policy_of_the_present_format_alone(run, tmp_path):
    run("init", tmp_path / "ours.yaml")
    before = (tmp_path / "ours.yaml").read_text()
    code, out, _ = run("migrate", tmp_path / "ours.yaml", "--write")
    assert code == 0
    assert "nothing to do" in out
    assert (tmp_path / "ours.yaml").read_text() == before


def test_migrate_of_an_unknown_format_exits_2(run, tmp_path):
    (tmp_path / "p.yaml").write_text("format: 9\nname: a\n")
    code, _, err = run("migrate", tmp_path / "p.yaml")
    assert code == 2
    assert "no way from format `9`" in err


def test_diff_reads_as_sentences(run):
    code, out, _ = run("diff", "default", "strict")
    assert code == 0
    assert "self_harm: threshold 0.5 → 0.25: more images blocked; " in out
    assert "disasters:" in out
    assert "action monitor → steer" in out


def test_diff_of_a_policy_with_itself_says_that_nothing_changes(run):
    assert "no question, negative or decision changes" in run("diff", "glyphs", "glyphs")[1]


def test_diff_replays_a_record_and_lists_what_would_have_gone_differently(run, tmp_path):
    one = tmp_path / "a.yaml"
    one.write_text("format: 1\nname: a\ncategories: [{id: star, negative: [star]}]\n")
    other = tmp_path / "b.yaml"
    other.write_text(one.read_text().replace("[star]", "[star], threshold: 0.8"))
    digest = json.loads(run("check", one, "--json")[1])["policies"][0]["digest"]
    common = {"request": "r1", "image": 0, "policy": {"digest": digest}}
    finding = {"category": "star", "term": "Star", "probability": 0.6, "threshold": 0.5}
    events = [
        {"event": "query", "step": 3, "findings": [finding], **common},
        {"event": "query", **common},
        {"event": "request.finished", **common},
    ]
    log = tmp_path / "audit.jsonl"
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    code, out, _ = run("diff", one, other, "--audit", log)
    assert code == 0
    assert "Of 1 recorded images, 1 would have had another result; 0 are comparable to the end." in out
    assert "r1 image 0: star → no negative from step 3 on" in out
    assert json.loads(run("diff", one, other, "--audit", log, "--json")[1])["replay"]["images"] == 1


@pytest.mark.parametrize("name", shipped())
def test_init_copies_a_shipped_policy_under_a_name_of_ones_own_with_tests_that_pass(run, tmp_path, name):
    assert run("init", tmp_path / "ours.yaml", "--from", name)[0] == 0
    assert load_policy(tmp_path / "ours.yaml").name == "ours"
    assert [category.id for category in load_policy(tmp_path / "ours.yaml").categories] == [
        category.id for category in load_policy(name).categories
    ]
    assert load_tests(tmp_path / "tests" / "ours.test.yaml").policy.name == "ours"


def test_init_from_a_policy_that_is_not_shipped_names_the_nearest(run, tmp_path):
    code, _, err = run("init", tmp_path / "ours.yaml", "--from", "defualt")
    assert code == 2
    assert "Did you mean `default`?" in err


def test_extending_a_shipped_policy_that_was_not_copied_says_how_to_copy_it(run, tmp_path):
    (tmp_path / "ours.yaml").write_text("format: 1\nname: ours\nextends: default.yaml\n")
    assert f"dnp-guard policy init {tmp_path / 'default.yaml'} --from default" in run("check", tmp_path)[2]


def test_init_writes_a_store_that_checks_and_passes_its_tests_with_a_token_for_each_tenant(run, tmp_path):
    code, out, _ = run("init", "--store", tmp_path / "store")
    assert code == 0
    assert run("check", tmp_path / "store")[0] == 0
    assert run("test", tmp_path / "store")[0] == 0
    tokens = dict(re.findall(r"token of (\w+), shown only once: (\S+)", out))
    grants = Tokens(tmp_path / "store" / "tokens.json")
    assert {grants.grant(f"Bearer {token}").tenant for token in tokens.values()} == set(tokens) == {"kids", "museum"}


def test_a_tenant_of_the_example_store_is_guarded_by_what_explain_prints(run):
    folder = example_store()
    document = json.loads(run("explain", folder, "--tenant", "kids", "--json")[1])
    with Guard(folder, vlm=ScriptedBackend([{}]), tenant="kids") as guard:
        assert guard.policy.digest == document["policy"]["digest"]
        assert [question.text for question in questions(guard.policy)] == [
            text for category in document["categories"] for text in category["questions"]
        ]


def test_the_example_store_shows_what_differs_by_time_and_region(run):
    def thresholds(*whom):
        document = json.loads(run("explain", example_store(), *whom, "--json")[1])
        return {category["id"]: category["threshold"] for category in document["categories"]}

    assert thresholds("--tenant", "museum", "--at", "2026-12-24")["nudity"] == 0.8
    assert thresholds("--tenant", "museum", "--at", "2027-02-01")["nudity"] == 0.5
    assert thresholds("--tenant", "kids", "--at", "2026-12-24")["nudity"] == 0.3
    assert "hate_symbols" in thresholds("--region", "eu")
    assert "hate_symbols" not in thresholds()


def test_init_copies_a_pack_under_a_name_of_ones_own(run, tmp_path):
    assert run("init", tmp_path / "arms.yaml", "--from", "packs/weapons")[0] == 0
    assert load_policy(tmp_path / "arms.yaml").name == "arms"
    assert run("test", tmp_path)[0] == 0


def test_init_composes_several_packs_to_one_policy_with_the_tests_of_all(run, tmp_path):
    path = tmp_path / "ours.yaml"
    names = ["packs/gore", "packs/weapons", "packs/brands"]
    assert run("init", path, *(part for name in names for part in ("--from", name)))[0] == 0
    tests = load_tests(tmp_path / "tests" / "ours.test.yaml")
    ran = run_tests(tests, None)
    assert [category.id for category in load_policy(path).categories] == ["gore", "weapons", "brands"]
    assert [case.differences for case in ran if not case.passed] == []
    assert coverage(tests.policy, ran).missing == ()


def test_check_warns_of_two_packs_with_one_category(run, tmp_path):
    run("init", tmp_path / "ours.yaml", "--from", "packs/minors", "--from", "packs/art-nudity")
    assert "warning: two policies that this one extends define `nudity`" in run("check", tmp_path / "ours.yaml")[2]
