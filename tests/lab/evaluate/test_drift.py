import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.lab.evaluate.drift import feature_distance, frechet, rmse255

seeds = st.integers(0, 2**32 - 1)


def draws(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_rmse_is_that_of_all_pixels_and_channels():
    image, reference = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    image[0, 0, 0] = 255
    assert rmse255(image, reference) == pytest.approx(255 / 12**0.5)


def test_bytes_do_not_wrap_around():
    assert rmse255(np.array([0], np.uint8), np.array([255], np.uint8)) == 255


def test_features_at_a_right_angle_at_half_of_the_places_are_at_distance_one():
    reference = np.array([[1.0, 1.0], [0.0, 0.0]])
    assert feature_distance(np.array([[5.0, 0.0], [0.0, 3.0]]), reference) == pytest.approx(1.0)


@given(seeds, st.floats(0.1, 10))
def test_the_feature_distance_does_not_see_the_length_of_features(seed, factor):
    features = draws(seed, 4, 3)
    assert feature_distance(features, factor * features) == pytest.approx(0, abs=1e-9)


@given(seeds)
def test_the_frechet_distance_of_a_set_from_itself_is_zero(seed):
    features = draws(seed, 12, 3)
    assert frechet(features, features) == pytest.approx(0, abs=1e-6)


@given(seeds)
def test_the_frechet_distance_is_symmetric(seed):
    x, y = draws(seed, 12, 3), 1 + 2 * draws(seed + 1, 9, 3)
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-6)


@given(seeds, st.floats(-5, 5))
def test_a_shift_alone_costs_its_squared_length(seed, shift):
    x = draws(seed, 12, 3)
    assert frechet(x + shift, x) == pytest.approx(3 * shift**2, rel=1e-6, abs=1e-6)


def test_in_one_dimension_it_is_that_of_two_normals():
    x, y = draws(1, 50, 1), 3 + 2 * draws(2, 40, 1)
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet(x, y) == pytest.approx(expected)


def test_fewer_images_than_channels_give_a_number():
    assert np.isfinite(frechet(draws(1, 4, 20), draws(2, 5, 20)))
