"""The tutorial's code prints the output and draws the pictures on its page, and its guarded image fits the prompt."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dnp_guard.lab.evaluate.detectors.glyphs import GlyphsDetector
from docs.tutorial_run import PAGE, PICTURES, committed, run, shown
from tests.docs.shell import commands, output_of, shows

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """Run the tutorial in a folder; return the folder, and the output of every code block."""
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, run(folder)


def test_the_tutorial_prints_what_it_shows(tutorial):
    _, outputs = tutorial
    assert outputs == shown(), "run: python -m docs.tutorial_run"


def test_the_commands_of_the_tutorial_print_what_it_shows(tutorial, monkeypatch, capsys):
    folder, _ = tutorial
    monkeypatch.chdir(folder)
    for command, printed in commands(PAGE.read_text(encoding="utf-8")):
        output = output_of(command, capsys)
        assert shows(output, printed), output


@pytest.mark.parametrize("name", PICTURES)
def test_the_tutorial_draws_what_it_shows(tutorial, name):
    folder, _ = tutorial
    drawn, stored = (np.asarray(Image.open(path), dtype=float) for path in (folder / name, committed(name)))
    assert np.abs(drawn - stored).mean() < 2, "run: python -m docs.tutorial_run"


@pytest.mark.parametrize(("name", "forbidden"), [("unguarded.png", ["star"]), ("guarded.png", [])])
def test_the_guard_takes_the_forbidden_glyph_away(name, forbidden):
    (detection,) = GlyphsDetector().look([Image.open(committed(name))])
    assert [glyph for glyph, probability in detection.probabilities.items() if probability >= 0.5] == forbidden


@pytest.mark.parametrize("name", PICTURES)
def test_the_glyph_that_was_asked_for_is_in_the_picture(name):
    (detection,) = GlyphsDetector().look([Image.open(committed(name))])
    assert ("blue", "circle") in detection.objects
