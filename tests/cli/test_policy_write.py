from __future__ import annotations

import json

import pytest

from dnp_guard import cli
from dnp_guard.policy import load_tests
from dnp_guard.policy.rehearsal.cases import run_tests
from dnp_guard.policy.rehearsal.coverage import coverage


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run(["policy", *map(str, args)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_init_writes_a_policy_that_checks_and_whose_tests_pass_and_touch_all_of_it(run, tmp_path):
    assert run("init", tmp_path / "new" / "ours.yaml")[0] == 0
    assert run("check", tmp_path)[0] == 0
    tests = load_tests(tmp_path / "new" / "tests" / "ours.test.yaml")
    ran = run_tests(tests, None)
    assert all(each.passed for each in ran)
    assert coverage(tests.policy, ran).missing == ()


def test_init_leaves_editors_the_schemas_that_its_files_name(run, tmp_path):
    run("init", tmp_path / "ours.yaml")
    assert json.loads((tmp_path / "schema" / "policy.v1.json").read_text())["title"] == "dnp_guard policy, format 1"
    assert "$schema=schema/policy.v1.json" in (tmp_path / "ours.yaml").read_text()


def test_init_overwrites_nothing(run, tmp_path):
    (tmp_path / "ours.yaml").write_text("mine")
    code, _, err = run("init", tmp_path / "ours.yaml")
    assert (code, "is already there" in err) == (2, True)
    assert (tmp_path / "ours.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["Ours.yaml", "ours.yml", "1.yaml"])
def test_init_refuses_a_name_that_no_policy_can_have(run, tmp_path, name):
    assert run("init", tmp_path / name)[0] == 2


def test_migrate_leaves_a_policy_of_the_present_format_alone(run, tmp_path):
    run("init", tmp_path / "ours.yaml")
    before = (tmp_path / "ours.yaml").read_text()
    code, out, _ = run("migrate", tmp_path / "ours.yaml", "--write")
    assert (code, "nothing to do" in out) == (0, True)
    assert (tmp_path / "ours.yaml").read_text() == before


def test_migrate_of_an_unknown_format_exits_2(run, tmp_path):
    (tmp_path / "p.yaml").write_text("format: 9\nname: a\n")
    code, _, err = run("migrate", tmp_path / "p.yaml")
    assert (code, "no way from format `9`" in err) == (2, True)


def test_diff_reads_as_sentences(run):
    code, out, _ = run("diff", "default", "strict")
    assert code == 0
    assert "self_harm: threshold 0.5 → 0.25: more images blocked; " in out
    assert "disasters:" in out
    assert "action monitor → steer" in out


def test_diff_of_a_policy_with_itself_says_that_nothing_changes(run):
    assert "nothing that is asked, injected or decided changes" in run("diff", "glyphs", "glyphs")[1]


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
    assert "Of 1 recorded images, 1 would have gone differently; 0 are comparable to the end." in out
    assert "r1 image 0: star → no negative from step 3 on" in out
    assert json.loads(run("diff", one, other, "--audit", log, "--json")[1])["replay"]["images"] == 1
