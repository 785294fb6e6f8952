import json
import shutil
from io import StringIO

import pytest
from PIL import Image
from pyarrow import parquet
from rich.console import Console
from rich.progress import Progress

from dnp_guard.cli import run
from dnp_guard.cli.evaluate import advancing
from dnp_guard.cli.evaluate_options import Compared, Drawn
from dnp_guard.cli.evaluate_paper import as_published
from dnp_guard.cli.evaluate_tables import print_tables
from tests.lab.evaluate.measured import line

pytestmark = pytest.mark.models

ARGUMENTS = ["evaluate", "--methods", "dnp-guard", "--n", "2", "--steps", "6"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run a small evaluation; return its folder, in which ``copy.json`` is the second file of its results."""
    out = tmp_path_factory.mktemp("evaluation")
    assert run([*ARGUMENTS, "--sets", "attack,multi", "--out", str(out), "--results", str(out / "copy.json")]) == 0
    return out


def test_the_results_are_rows_of_every_set_and_method_and_number_of_categories(measured):
    lines = json.loads((measured / "results.json").read_text())
    assert [(line["set"], line["method"], line["categories"]) for line in lines] == [
        ("attack", "unguarded", None),
        ("attack", "dnp-guard", None),
        ("multi", "unguarded", None),
        ("multi", "dnp-guard", None),
        *(("multi", "dnp-guard", k) for k in (1, 2, 3)),
    ]
    assert all(line["n"] == 2 for line in lines)
    assert lines == json.loads((measured / "copy.json").read_text())


def test_the_detector_is_named_with_version_and_threshold(measured):
    (named,) = {line["detector"] for line in json.loads((measured / "results.json").read_text())}
    assert named.startswith("glyphs ")
    assert named.endswith(" @ 0.5")


def test_parquet_has_one_row_an_image(measured):
    rows = parquet.read_table(measured / "results.parquet").to_pylist()
    assert len(rows) == 2 * 7
    assert rows == [json.loads(line) for line in (measured / "rows.jsonl").read_text().splitlines()]


def test_the_report_shows_a_contact_sheet_of_every_set(measured):
    page = (measured / "report.html").read_text()
    for name in ("attack", "multi"):
        assert f'src="sheet-{name}.png"' in page
        with Image.open(measured / f"sheet-{name}.png") as sheet:
            assert sheet.width > 300
    assert "<svg" in page
    assert "![" in (measured / "report.md").read_text()


def test_another_run_in_the_same_folder_is_refused(measured, capsys):
    assert run([*ARGUMENTS, "--sets", "benign", "--out", str(measured)]) == 2
    assert "belongs to another run" in capsys.readouterr().err


def test_results_of_another_detector_are_not_merged(measured, tmp_path, capsys):
    other = [{**json.loads((measured / "results.json").read_text())[0], "detector": "nudenet 3 @ 0.6"}]
    (tmp_path / "other.json").write_text(json.dumps(other))
    arguments = ["--sets", "attack,multi", "--out", str(measured), "--merge", str(tmp_path / "other.json")]
    assert run([*ARGUMENTS, *arguments]) == 2
    assert "nudenet 3 @ 0.6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--methods", "evl-dmp"], "evl-dnp"),
        (["--sets", "atack"], "attack"),
        (["--scales", "x"], "--scales 'x'"),
        (["--engine", "spark"], "here or ray"),
        (["--grow", "yes"], "beside, only or no"),
        (["--detector", "yolo"], "no detector knows the spec 'yolo'"),
        (["--sets", "none.csv"], "none.csv"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(tmp_path, capsys, arguments, expected):
    assert run([*ARGUMENTS, "--out", str(tmp_path), *arguments]) == 2
    assert expected in capsys.readouterr().err.replace("\n", " ")


def test_files_of_one_name_do_not_take_each_others_place(tmp_path, capsys):
    files = [tmp_path / folder / "prompts.csv" for folder in ("first", "second")]
    for file in files:
        file.parent.mkdir()
        file.write_text("prompt\na cat\n")
    assert run([*ARGUMENTS, "--prompts", ",".join(map(str, files)), "--out", str(tmp_path / "out")]) == 2
    assert "several files of prompts are named 'prompts'" in capsys.readouterr().err.replace("\n", " ")


def printed(width):
    console = Console(width=width, file=StringIO())
    names = ("unguarded", "static-separate", "dnp-guard-whole-list")
    print_tables(console, [line(model="own", set="mine", method=name, asr=0.31) for name in names])
    return console.file.getvalue()


def test_a_narrow_terminal_cuts_no_cell_and_names_the_columns_left_out():
    page = printed(80)
    assert "…" not in page
    assert "dnp-guard-whole-list × 15" in page
    assert "31.0% [26, 36]" in page
    assert "time ×" not in page.split("in report.md only")[0]
    assert "time ×" in page.split("in report.md only")[1]


def test_the_printed_tables_name_their_judge():
    assert "judged by glyphs 0 @ 0.5" in printed(250)


def test_a_wide_terminal_shows_every_column():
    page = printed(250)
    assert "time ×" in page
    assert "in report.md only" not in page


def test_what_is_given_wins_over_the_published_setting_also_where_it_is_the_default():
    compared, drawn = as_published(Compared(methods="all", model="glyphs"), Drawn(guidance=5.0))
    assert compared.methods == "all"
    assert compared.model == "glyphs"
    assert drawn.guidance == 5.0
    assert drawn.steps == 50


def test_the_remaining_time_of_a_resumed_run_is_told_by_this_start_alone():
    seconds = iter([100.0, 140.0])
    progress = Progress(speed_estimate_period=float("inf"))
    hear = advancing(progress, [4, 4, 4, 2])
    progress.get_time = lambda: next(seconds)
    hear(2)
    hear(1)
    (task,) = progress.tasks
    assert task.completed == 12
    assert task.total == 14
    assert task.speed == 4 / 40


def test_json_is_one_document(measured, capsys):
    assert run([*ARGUMENTS, "--sets", "attack,multi", "--out", str(measured), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    assert {"results", "targets", "files"} <= set(document)


def test_a_run_that_was_cut_short_can_be_reported_on(measured, tmp_path, capsys):
    shutil.copytree(measured, tmp_path / "cut")
    rows = tmp_path / "cut" / "rows.jsonl"
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[:-1]))
    assert run([*ARGUMENTS, "--sets", "attack,multi", "--out", str(tmp_path / "cut"), "--report", "--json"]) == 0
    assert {line["set"] for line in json.loads(capsys.readouterr().out)["results"]} == {"attack"}
    rows.unlink()
    assert run([*ARGUMENTS, "--sets", "attack,multi", "--out", str(tmp_path / "cut"), "--report"]) == 2
    assert "no whole batch yet" in capsys.readouterr().err
