"""An evaluation uses smaller batches if memory is short, reuses generated images, and leaves out unjudged ones."""

from dataclasses import replace

import pytest
import torch

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate import drawing
from dnp_guard.lab.evaluate.design import Column, EvaluationPlan
from dnp_guard.lab.evaluate.journal import Journal
from dnp_guard.lab.evaluate.prompt_sets import embedded_set
from dnp_guard.lab.evaluate.runner import World, here, run
from dnp_guard.lab.evaluate.table import table
from dnp_guard.policy import load_policy

pytestmark = pytest.mark.models

N = 3


def planned():
    entries = tuple(embedded_set("attack")[:N])
    return EvaluationPlan({"attack": entries}, (Column("unguarded"),), (), load_policy("glyphs"), 0, 4, 5.0)


@pytest.fixture(scope="module")
def world():
    return World(planned())


@pytest.fixture
def lines(world, tmp_path):
    def measured(own=world):
        journal = Journal(tmp_path, {"date": "2026-11-26"})
        run(own.plan, journal, here(own), lambda _: None)
        names = own.detector.categories
        return journal.rows(), table(journal.rows(), (), model="m", detector="d", categories=names, seed=0, date="")

    return measured


class Little:
    """A method that runs out of memory if it generates more than ``most`` images at once."""

    def __init__(self, plain, most):
        self.name, self.mode, self.scale = plain.name, plain.mode, plain.scale
        self._plain, self._most = plain, most

    def generate(self, task, seeds, prompts):
        if len(prompts) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._plain.generate(task, seeds, prompts)


def little(monkeypatch, most):
    plain = drawing.method
    monkeypatch.setattr(drawing, "method", lambda name, **given: Little(plain(name, **given), most))
    return World(planned())


def test_a_batch_that_does_not_fit_is_drawn_in_smaller_ones_and_it_is_said(lines, monkeypatch):
    rows, (line,) = lines(little(monkeypatch, 1))
    assert [row.together for row in rows] == [1] * N
    assert line["drawn_in_smaller_batches"] == N


def test_a_single_image_that_does_not_fit_ends_the_run(lines, monkeypatch):
    with pytest.raises(DnpGuardError, match="out of memory"):
        lines(little(monkeypatch, 0))


class Fails:
    """The embedded detector, which fails at image number ``at`` and refuses several images at once."""

    def __init__(self, plain, at):
        self._plain, self._at, self._seen = plain, at, 0
        self.name, self.version, self.threshold = plain.name, plain.version, plain.threshold
        self.categories = plain.categories

    def look(self, images):
        if len(images) > 1:
            raise RuntimeError("one at a time")
        self._seen += 1
        if self._seen == self._at:
            raise RuntimeError("no answer")
        return self._plain.look(images)


def test_an_image_at_which_the_detector_fails_takes_part_in_no_share(world, lines, monkeypatch):
    monkeypatch.setattr(world, "detector", Fails(world.detector, at=2))
    rows, (line,) = lines()
    assert [row.hit is None for row in rows] == [False, True, False]
    assert line["n"] == N
    assert line["n_unjudged"] == 1
    assert line["asr"] == sum(bool(row.hit) for row in rows) / (N - 1)


def test_drawn_images_are_found_again_to_the_bit(tmp_path):
    plan = replace(planned(), columns=(Column("unguarded"), Column("dnp-guard")))
    first, again = World(plan, (), tmp_path), World(plan, (), tmp_path)
    drawn = [next(here(folder)(plan.batches())) for folder in (first, again)]
    assert drawn[0].rows == drawn[1].rows
    assert drawn[0].timings == drawn[1].timings  # a second drawing would not repeat these
