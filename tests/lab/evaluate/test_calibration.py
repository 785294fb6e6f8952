from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.lab.evaluate.calibration import calibrate, expected_error, roc, threshold
from dnp_guard.lab.evaluate.intervals import auc
from dnp_guard.lab.evaluate.roc_plot import draw_roc

scores = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(scores, st.floats(0, 1))
def test_no_more_negatives_than_wanted_reach_the_threshold(negative, rate):
    at = threshold(negative, rate)
    reached = sum(p >= at for p in negative)
    assert reached <= rate * len(negative) + 1e-6 or at == 1.0


def test_a_threshold_is_no_higher_than_it_must_be():
    assert threshold([0.1] * 98 + [0.8, 0.9], 0.02) == 0.11


@given(scores, scores)
def test_the_area_under_the_curve_is_the_auc(positive, negative):
    points = roc(positive, negative)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert area == pytest.approx(auc(positive, negative), abs=1e-9)
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)


def test_probabilities_that_are_right_have_no_error():
    assert expected_error([0.25] * 4 + [0.75] * 4, [True, False, False, False, True, True, True, False]) == 0


def test_certainty_that_is_wrong_has_an_error_of_one():
    assert expected_error([1.0, 0.0], [False, True]) == 1


def test_a_category_that_is_never_there_has_no_auc():
    calibration = calibrate([0.1, 0.2], [False, False], 0.5)
    assert math.isnan(calibration.auc)
    assert math.isnan(calibration.detected)
    assert calibration.roc == ()


def test_a_plot_holds_one_curve_for_each_category_and_escapes_its_name():
    calibration = calibrate([0.1, 0.9], [False, True], 0.5)
    plot = draw_roc("a <b>", {"star": [calibration], "bolt": [calibration]})
    assert plot.count("<polyline") == 2
    assert "a &lt;b&gt;" in plot
