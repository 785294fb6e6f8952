from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnp_guard.cli import run
from dnp_guard.glyphs.scene import FORBIDDEN, render, sample_scene


@pytest.fixture
def labelled(tmp_path):
    """Return a folder of pictures and their labels, which call half of them early and half of them finished."""
    rng = np.random.default_rng(3)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *FORBIDDEN, "progress"])
        for number in range(80):
            scene = sample_scene(rng)
            Image.fromarray(render(scene, rng)).save(tmp_path / f"{number}.png")
            writer.writerow([f"{number}.png", *(int(scene.shows(s)) for s in FORBIDDEN), 0.2 if number % 2 else 1])
    return tmp_path


def arguments(folder, *more):
    labels = ["--images", str(folder), "--labels", str(folder / "labels.csv")]
    return ["vlm", "calibrate", "--vlm", "glyphs", *labels, "--out", str(folder / "c.json"), *more]


@pytest.mark.models
def test_calibrate_reports_each_category_and_range_and_writes_a_file_and_a_plot(labelled, capsys):
    assert run(arguments(labelled, "--ranges", "0.5,1", "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((labelled / "c.json").read_text())
    assert printed["categories"] == written["categories"]
    assert written["vlm"]["name"] == "glyphs"
    assert len(written["vlm"]["revision"]) == 12
    for ranges in written["categories"].values():
        assert [(span["begin"], span["end"], span["n"]) for span in ranges] == [(0, 0.5, 40), (0.5, 1, 40)]
        assert all(span["auc"] > 0.9 for span in ranges)
    assert (labelled / "c.svg").read_text().count("<polyline") == 6


@pytest.mark.models
def test_calibrate_draws_pictures_of_the_embedded_model_itself(tmp_path, capsys):
    out = tmp_path / "c.json"
    assert run(["vlm", "calibrate", "--vlm", "glyphs", "--held-out", "60", "--ranges", "0.4,1", "--out", str(out)]) == 0
    assert "star, 0.4 to 1:" in capsys.readouterr().out
    assert set(json.loads(out.read_text())["categories"]) == set(FORBIDDEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("star", "moon", 1), "no column 'star'"),
        (lambda text: text.replace("0.png", "absent.png", 1), "cannot be read"),
        (lambda text: text.replace(",0,", ",maybe,", 1), "is not a label"),
        (lambda text: text.splitlines()[0], "no picture is listed"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labelled, capsys, change, message):
    path = labelled / "labels.csv"
    path.write_text(change(path.read_text()))
    assert run(arguments(labelled)) == 2
    assert message in capsys.readouterr().err
    assert not Path(labelled / "c.json").exists()


@pytest.mark.parametrize("more", [["--ranges", "0.5"], ["--ranges", "x"], ["--held-out", "60"]])
def test_options_that_contradict_each_other_are_usage_errors(labelled, capsys, more):
    assert run(arguments(labelled, *more)) == 2
