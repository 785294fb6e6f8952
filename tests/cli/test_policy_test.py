from __future__ import annotations

import json

import pytest
from PIL import Image

from dnp_guard import cli
from dnp_guard.policy import schema_of_tests, shipped

POLICY = "format: 1\nname: p\ncategories: [{id: star, look_for: [a star], negative: [star]}]\n"
TESTS = """\
format: 1
policy: ../p.yaml
cases:
  - {name: A star is steered away, looks: [{a star: 0.9}], expect: {decision: steered}}
"""


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run(["policy", "test", *map(str, args)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "p.test.yaml").write_text(TESTS)
    return tmp_path


def test_tests_that_pass_exit_0(run, folder):
    code, out, _ = run(folder, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["ok"] is True
    assert document["passed"] == 1
    assert document["errors"] == []
    assert "star: nothing under its threshold 0.5" in document["files"][0]["coverage"]["missing"]


def test_a_failing_case_exits_1_and_says_what_came(run, folder):
    (folder / "tests" / "p.test.yaml").write_text(TESTS.replace("steered}", "clean}"))
    code, out, _ = run(folder, "--json")
    document = json.loads(out)
    assert code == 1
    assert document["ok"] is False
    assert document["failed"] == 1
    (error,) = document["errors"]
    assert error["line"] == 4
    assert error["code"] == "case-failed"
    assert error["message"] == "A star is steered away: decision: expected clean, got steered."


def test_a_person_reads_counts_failures_and_what_is_untouched(run, folder):
    (folder / "tests" / "p.test.yaml").write_text(TESTS.replace("steered}", "clean}"))
    _, out, err = run(folder)
    assert "0 of 1 passed" in out
    assert "FAILED A star is steered away (line 4)\n    decision: expected clean, got steered" in out
    assert "not covered: star: nothing under its threshold 0.5" in out
    assert err == ""


def test_the_tests_of_a_policy_are_found_beside_it(run, folder):
    assert run(folder / "p.yaml")[0] == 0


def test_the_tests_of_a_shipped_policy_are_found_by_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("default")
    assert code == 0
    assert "0 failed" in out


def test_a_policy_that_is_not_there_is_said_to_be_none(run, folder):
    code, _, err = run(folder / "missing.yaml")
    assert code == 2
    assert "missing.yaml: no such file or folder" in err


def test_a_policy_without_tests_exits_2(run, folder):
    (folder / "q.yaml").write_text(POLICY)
    code, _, err = run(folder / "q.yaml")
    assert code == 2
    assert "no tests here" in err


def test_a_file_of_tests_that_does_not_check_exits_1_with_its_problem(run, folder):
    (folder / "tests" / "p.test.yaml").write_text(TESTS.replace("a star: 0.9", "a start: 0.9"))
    code, _, err = run(folder)
    assert code == 1
    assert "Did you mean `a star`?" in err


def test_images_without_a_model_are_a_usage_error(run, folder):
    assert run(folder, "--images", folder)[0] == 2


@pytest.mark.models
def test_the_shipped_policies_pass_their_tests(run):
    code, out, _ = run(shipped()["default"].parent, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["errors"] == []
    packs = {pack.stem for pack in (shipped()["default"].parent / "packs").glob("*.yaml")}
    assert {file["policy"] for file in document["files"]} == {*shipped(), *packs}
    assert [file["policy"] for file in document["files"] if file["coverage"]["missing"]] == []


@pytest.fixture
def script(folder):
    path = folder / "script.yaml"
    path.write_text("[{a star: 0.9}, {}]")  # answers for the first picture, and for all later ones
    return f"scripted:{path}"


def picture(path):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def test_a_case_may_show_an_image_to_a_model(run, folder, script):
    picture(folder / "tests" / "a.png")
    case = f"  - {{name: Seen once, image: a.png, vlm: '{script}', expect: {{decision: steered}}}}\n"
    (folder / "tests" / "p.test.yaml").write_text(TESTS.partition("  - ")[0] + case)
    code, out, _ = run(folder, "--json")
    assert code == 0
    assert json.loads(out)["passed"] == 1


def test_an_image_that_is_not_there_is_reported(run, folder, script):
    case = f"  - {{name: Seen once, image: a.png, vlm: '{script}', expect: {{decision: steered}}}}\n"
    (folder / "tests" / "p.test.yaml").write_text(TESTS.partition("  - ")[0] + case)
    code, _, err = run(folder)
    assert code == 2
    assert "no image that can be read" in err


def test_detection_is_measured_on_folders_of_images(run, folder, script):
    for place in ("star/1.png", "star/2.png", "clean/1.png"):
        (folder / "images").mkdir(exist_ok=True)
        picture(folder / "images" / place)
    code, out, _ = run(folder, "--vlm", script, "--images", folder / "images", "--json")
    (star,) = json.loads(out)["files"][0]["detection"]
    assert code == 0
    named = {"missed": [str(folder / "images" / "star" / f"{n}.png") for n in (1, 2)]}
    named["alarmed"] = [str(folder / "images" / "clean" / "1.png")]
    assert star == {"category": "star", "images": 2, "seen": 0, "others": 1, "false_alarms": 1, **named}


def test_pictures_that_are_judged_wrongly_are_named(run, folder, script):
    (folder / "images").mkdir()
    picture(folder / "images" / "star" / "1.png")
    picture(folder / "images" / "clean" / "1.png")
    _, out, _ = run(folder, "--vlm", script, "--images", folder / "images")
    assert f"false alarm in {folder / 'images' / 'clean' / '1.png'}" in out
    assert f"missed in {folder / 'images' / 'star' / '1.png'}" in out


def test_a_folder_of_images_named_after_no_category_is_refused(run, folder, script):
    (folder / "images").mkdir()
    picture(folder / "images" / "sta" / "1.png")
    code, _, err = run(folder, "--vlm", script, "--images", folder / "images")
    assert code == 2
    assert "Did you mean `star`?" in err


def test_the_shipped_schema_of_tests_is_what_schema_prints(capsys):
    cli.run(["policy", "schema", "--tests"])
    committed = shipped()["default"].parent / "schema" / "policy-test.v1.json"
    assert capsys.readouterr().out == committed.read_text(encoding="utf-8")
    assert schema_of_tests()["title"] == "dnp_guard policy tests, format 1"
