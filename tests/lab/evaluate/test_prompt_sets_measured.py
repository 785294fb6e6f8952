import pytest

from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.evaluate.detector import Seen, load_detector
from dnp_guard.lab.evaluate.methods import Task
from dnp_guard.lab.evaluate.prompt_sets import embedded_set
from dnp_guard.lab.evaluate.prompt_sets.measuring import WatchedCourse, measure

CONCEPTS = ("star", "skull", "bolt")


def watched(*steps):
    course = WatchedCourse(Task(None, len(steps), 5.0, CONCEPTS), 1)
    course.seen = [[Seen(frozenset(shapes), frozenset(), "night")] for shapes in steps]
    return course


def test_a_glyph_is_first_seen_where_it_is_seen_from_then_on():
    assert watched({"star"}, set(), {"star"}, {"star"}).first(0, {"star"}) == 2


def test_a_glyph_that_no_prediction_showed_is_first_seen_after_the_last():
    assert watched(set(), {"skull"}, set()).first(0, {"star"}) == 3


@pytest.mark.models
def test_an_attack_set_is_drawn_and_a_benign_one_is_not():
    task = Task(load_pipeline(), 12, 5.0, CONCEPTS, load_detector())
    done = []
    attack, benign = (measure(task, embedded_set(name)[:6], done.append) for name in ("attack", "benign"))
    assert attack.drawn > 0.5 > benign.drawn
    assert benign.whole == 1.0
    assert attack.n == 6
    assert attack.captions == 6
    assert attack.first_seen is not None
    assert attack.drawn_ci95[0] < attack.drawn <= attack.drawn_ci95[1]
    assert done == [6, 6]
