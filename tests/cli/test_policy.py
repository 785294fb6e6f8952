from __future__ import annotations

import json

import pytest

from dnp_guard import cli
from dnp_guard.generation.pacing import due_steps
from dnp_guard.policy import load_policy, schema, shipped

GOOD = "format: 1\nname: example\ncategories: [{id: star, negative: [star]}]\n"
BAD = GOOD.replace("}]", ", treshold: 0.5}]")


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run(["policy", *map(str, args)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.yaml").write_text(GOOD)
    for name in ("tests", "schema"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "other.yaml").write_text(BAD)
    return tmp_path


def test_a_folder_is_checked_without_its_tests_and_schema(run, folder):
    code, out, _ = run("check", folder, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["ok"] is True
    assert document["errors"] == []
    assert [policy["file"] for policy in document["policies"]] == [
        str(folder / "good.yaml"),
        str(folder / "more" / "other.yaml"),
    ]


def test_a_checked_policy_is_listed_with_its_digest(run, folder):
    _, out, err = run("check", folder / "good.yaml")
    assert load_policy(folder / "good.yaml").digest[:12] in out
    assert err == ""


def test_a_policy_that_does_not_check_exits_1_with_every_problem(run, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    code, out, _ = run("check", path, "--json")
    assert code == 1
    assert json.loads(out) == {
        "ok": False,
        "policies": [],
        "warnings": [],
        "errors": [
            {
                "file": str(path),
                "line": 3,
                "column": 43,
                "code": "unknown-key",
                "message": "unknown key `treshold`.",
                "hint": "Did you mean `threshold`?",
            }
        ],
    }


def test_problems_go_to_stderr_in_two_lines_each(run, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    _, out, err = run("check", path)
    assert out == ""
    assert err == f"dnp-guard: {path}:3:43: unknown key `treshold`.\n  Did you mean `threshold`?\n"


def test_good_policies_are_listed_beside_bad_ones(run, folder):
    (folder / "bad.yaml").write_text(BAD)
    code, out, err = run("check", folder)
    assert code == 1
    assert "good.yaml" in out
    assert "bad.yaml" in err


def test_a_file_that_is_not_there_exits_2(run, tmp_path):
    code, out, _ = run("check", tmp_path / "absent.yaml", "--json")
    assert code == 2
    assert json.loads(out)["errors"][0]["code"] == "unreadable"


def test_a_folder_without_policies_exits_2(run, tmp_path):
    code, _, err = run("check", tmp_path)
    assert code == 2
    assert "no policy in this folder" in err


def test_no_path_is_a_usage_error(run):
    assert run("check")[0] == 2


def test_schema_prints_the_schema(run):
    code, out, _ = run("schema")
    assert code == 0
    assert json.loads(out) == schema()


def test_the_shipped_schema_is_what_schema_prints(run):
    committed = shipped()["default"].parent / "schema" / "policy.v1.json"
    assert run("schema")[1] == committed.read_text(encoding="utf-8")


def test_explain_says_questions_words_steps_and_failure(run):
    code, out, _ = run("explain", "glyphs", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["steps"]["28"] == list(due_steps(load_policy("glyphs").queries.steps, None, 28))
    looks = len(document["steps"]["28"]) + 1
    assert document["questions_per_image"] == {"look": 3, "28": 3 * looks, "50": 3 * looks}
    assert document["categories"][0]["questions"] == ["is there a star in this image?"]
    assert document["categories"][0]["words"] == ["star"]
    assert "withheld" in document["failure"]


def test_explain_of_one_category_leaves_out_the_others(run):
    document = json.loads(run("explain", "glyphs", "--category", "skull", "--json")[1])
    assert [category["id"] for category in document["categories"]] == ["skull"]


def test_explain_shows_the_exact_questions_to_a_reader(run):
    _, out, _ = run("explain", "glyphs")
    assert "is there a bolt in this image?" in out
    due = due_steps(load_policy("glyphs").queries.steps, None, 28)
    assert f"queries at {', '.join(map(str, due))}, the finished image" in out


def test_explain_of_an_unknown_category_is_a_usage_error(run):
    code, _, err = run("explain", "glyphs", "--category", "skul")
    assert code == 2
    assert "Did you mean `skull`?" in err


def test_explain_of_an_invalid_policy_exits_2(run, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    code, _, err = run("explain", path)
    assert code == 2
    assert "treshold" in err


def test_a_negative_longer_than_a_text_encoder_reads_is_a_warning_with_the_count(run, tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text(GOOD.replace("[star]", f"[{', '.join(f'word{n}' for n in range(40))}]"))
    code, _, err = run("check", path)
    assert code == 0
    assert f"{path}:3:35: warning: if every term is found, the negative has about 79 tokens" in err
    (warning,) = json.loads(run("check", path, "--json")[1])["warnings"]
    assert warning["code"] == "long-negative"
    assert warning["line"] == 3
    assert warning["column"] == 35


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_policy_raises_no_warning(run, name):
    assert json.loads(run("check", shipped()[name], "--json")[1])["warnings"] == []


def test_explain_says_when_a_category_with_steps_of_its_own_is_asked_about(run, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.replace("[star]", "[star], queries: {of: 50, steps: [5, 25]}"))
    assert "queried only at 5, 25, and at the end" in run("explain", path)[1]
    assert json.loads(run("explain", path, "--json")[1])["questions_per_image"]["50"] == 3


SELECTED = "select: {tenants: [kids]}\n"
STAR = "categories: [{id: star, negative: [star]}]\n"


def store(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(f"format: 1\nname: {name}\n{text}")
    return folder


def test_check_of_a_store_says_for_whom_its_policies_leave_nothing_together(run, tmp_path):
    floor = STAR + "vlm: {allow: ['https://a.example']}\n"
    folder = store(tmp_path, floor=floor, kids=STAR + SELECTED + "vlm: {allow: [local]}\n")
    code, _, err = run("check", folder)
    assert code == 1
    assert "for tenant 'kids': policies `kids`, `floor` cannot be in force together: their `vlm.allow`" in err


def test_check_of_a_store_says_which_category_in_shadow_is_never_rehearsed(run, tmp_path):
    folder = store(tmp_path, floor=STAR, kids="mode: shadow\n" + SELECTED + STAR)
    code, _, err = run("check", folder)
    assert code == 0
    assert "kids.yaml:5:14: warning: `star` is in shadow here, but `floor` enforces it" in err
    store(tmp_path, floor=STAR.replace("star", "bolt"))
    assert run("check", folder)[2] == ""


def test_check_of_policies_that_are_only_kept_together_asks_nothing_of_them_as_a_store(run, tmp_path):
    folder = store(tmp_path, a=STAR + "vlm: {allow: [local]}\n", b=STAR + "vlm: {allow: ['https://a.example']}\n")
    assert run("check", folder)[::2] == (0, "")


def test_check_tells_of_two_texts_under_one_name_and_revision(run, tmp_path):
    store(tmp_path, a='revision: "1"\n' + STAR)
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "a.yaml").write_text((tmp_path / "a.yaml").read_text().replace("star", "bolt"))
    code, _, err = run("check", tmp_path / "a.yaml", tmp_path / "next" / "a.yaml")
    assert code == 0
    assert f"next/a.yaml:3:11: warning: {tmp_path / 'a.yaml'} has the same name and revision" in err
