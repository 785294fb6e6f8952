"""An evaluation runs on the real embedded models, here with a few prompts and steps."""

import json
import subprocess
import sys

import pytest
import torch

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate import drawing
from dnp_guard.lab.evaluate.design import Column, EvaluationPlan
from dnp_guard.lab.evaluate.journal import ROWS, Journal
from dnp_guard.lab.evaluate.prompt_sets import embedded_set
from dnp_guard.lab.evaluate.runner import World, here, run
from dnp_guard.policy import load_policy

pytestmark = pytest.mark.models

IDENTITY = {"date": "2026-11-21"}


def planned(sets=("attack", "benign"), n=5, columns=("unguarded", "dnp-guard"), grown=(), **values):
    return EvaluationPlan(
        {name: tuple(embedded_set(name)[:n]) for name in sets},
        tuple(map(Column, columns)),
        tuple(grown),
        load_policy("glyphs"),
        **{"seed": 0, "steps": 8, "guidance_scale": 5.0, "size": 3, **values},
    )


@pytest.fixture(scope="module")
def world():
    return World(planned())


@pytest.fixture(scope="module")
def ran(world, tmp_path_factory):
    """Run a whole evaluation; return its journal, and the numbers of batches that it reported as progress."""
    journal = Journal(tmp_path_factory.mktemp("whole"), IDENTITY)
    heard = []
    run(world.plan, journal, here(world), heard.append)
    return journal, heard


def test_there_is_one_row_for_every_set_method_and_prompt(ran):
    journal, _ = ran
    cells = {(row.set, row.method, row.index) for row in journal.rows()}
    assert cells == {(s, m, i) for s in ("attack", "benign") for m in ("unguarded", "dnp-guard") for i in range(5)}
    assert len(journal.rows()) == len(cells)


def test_progress_is_heard_batch_by_batch(ran):
    _, heard = ran
    assert heard == [0, 1, 1, 1, 1]


def test_an_unguarded_image_is_its_own_reference(ran):
    own = [row for row in ran[0].rows() if row.method == "unguarded"]
    for row in own:
        assert row.identical
        assert row.rmse255 == 0
        assert row.feature_distance == 0
        assert row.evaluations == 16
        assert row.queries == 0
        assert not row.intervened
    assert {row.clean != row.hit for row in own} == {True}


def test_an_image_that_the_guard_left_alone_is_identical(ran):
    for row in ran[0].rows():
        if not row.intervened:
            assert row.identical
            assert row.evaluations == 16


def test_a_guarded_image_is_looked_at(ran):
    assert {row.queries > 0 and bool(row.outcome) for row in ran[0].rows() if row.method == "dnp-guard"} == {True}


def test_every_batch_is_timed_side_by_side(ran):
    timings = ran[0].timings()
    assert len(timings) == 4 * 2
    assert {
        measurement.seconds == measurement.unguarded
        for measurement in timings
        if measurement.cell.method == "unguarded"
    } == {True}


def test_images_for_the_contact_sheets_are_kept(ran):
    journal, _ = ran
    assert {journal.image(row.cell, row.index).exists() for row in journal.rows()} == {True}


KILLED = """
import json, os, signal, sys
from pathlib import Path
from dnp_guard.lab.evaluate.journal import Journal
from dnp_guard.lab.evaluate.runner import World, here, run
sys.path.insert(0, os.getcwd())
from tests.lab.evaluate.test_runner import planned
world, done = World(planned()), []

def advance(n):
    done.append(n)
    if sum(done) == 2:
        # In the middle of the next line that is written.
        with (Path(sys.argv[1]) / "rows.jsonl").open("a") as file:
            file.write('{"set": "attack", "met')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

run(world.plan, Journal(Path(sys.argv[1]), json.loads(sys.argv[2])), here(world), advance)
"""


def test_a_run_that_was_killed_goes_on_and_is_the_same_to_the_bit(world, ran, tmp_path):
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), json.dumps(IDENTITY)],
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    journal = Journal(tmp_path, IDENTITY)
    heard = []
    run(world.plan, journal, here(world), heard.append)
    assert heard == [2, 1, 1]
    assert (tmp_path / ROWS).read_bytes() == (ran[0].folder / ROWS).read_bytes()


def test_a_finished_run_measures_nothing_again(world, ran):
    before = (ran[0].folder / ROWS).read_bytes()
    run(world.plan, Journal(ran[0].folder, IDENTITY), nothing_left, deaf)
    assert (ran[0].folder / ROWS).read_bytes() == before


def nothing_left(batches):
    assert list(batches) == []
    return iter(())


def deaf(done):
    """Ignore a report of progress."""


def test_another_seed_gives_other_images(ran):
    other = World(planned(sets=("benign",), n=1, columns=("unguarded",), seed=1))
    (measured,) = here(other)(other.plan.batches())
    before = next(row for row in ran[0].rows() if (row.set, row.method, row.index) == ("benign", "unguarded", 0))
    assert measured.rows[0].seed == before.seed + 1
    assert measured.rows[0].features != before.features


def test_the_number_of_threads_is_as_before(world):
    torch.set_num_threads(2)
    try:
        list(here(world)(world.plan.batches()[:1]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_method_that_fails_stops_the_run_and_is_named(world, tmp_path, monkeypatch):
    plan = planned(columns=("unguarded", "static-replace"), n=2)
    broken = World(plan)
    monkeypatch.setattr(drawing, "method", lambda name, **_: Broken() if name == "static-replace" else real(name))
    with pytest.raises(DnpGuardError, match="static-replace on attack, prompts 0 to 0: no memory"):
        run(plan, Journal(tmp_path, IDENTITY), here(broken), deaf)
    assert Journal(tmp_path, IDENTITY).rows() == []


real = drawing.method


class Broken:
    name, mode, scale = "static-replace", "replace", None

    def generate(self, task, seeds, prompts):
        raise RuntimeError("no memory")


def test_growing_policies_are_measured_by_the_first_of_two_categories(tmp_path):
    columns = [Column("dnp-guard", None, k) for k in (1, 3)]
    plan = planned(sets=("multi",), n=4, columns=("unguarded",), grown=columns)
    journal = Journal(tmp_path, IDENTITY)
    run(plan, journal, here(World(plan)), deaf)
    rows = journal.rows()
    assert [row.categories for row in rows[:9]] == [None] * 3 + [1] * 3 + [3] * 3
    for row in rows:
        if row.categories:
            first = plan.sets["multi"][row.index].prompt.forbidden[0]
            assert row.hit == (first in row.seen)
