import math

from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dnp_guard.lab.evaluate.intervals import bootstrap, bootstrap_ratio, jackknife, mcnemar

floats = st.floats(-1e3, 1e3)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_p_is_the_exact_binomial_test_of_the_discordant_pairs(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert math.isclose(mcnemar(gained, lost), expected, rel_tol=1e-9)


@given(st.lists(floats, min_size=1, max_size=30))
def test_a_bootstrap_interval_lies_within_the_values(values):
    low, high = bootstrap(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_the_same_values_and_seed_have_the_same_interval():
    values = [float(x * x) for x in range(50)]
    assert bootstrap(values, 3) == bootstrap(values, 3)
    assert bootstrap(values, 3) != bootstrap(values, 4)


def test_a_bootstrap_interval_is_about_two_standard_errors_each_way():
    values = [float(x) for x in range(200)]
    low, high = bootstrap(values)
    error = math.sqrt((200**2 - 1) / 12 / 200)
    assert math.isclose(high - low, 2 * 1.96 * error, rel_tol=0.1)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.floats(0.1, 10))
def test_the_ratio_of_proportional_values_is_the_factor_in_every_resample(under, factor):
    low, high = bootstrap_ratio([factor * value for value in under], under)
    assert math.isclose(low, factor, rel_tol=1e-9)
    assert math.isclose(high, factor, rel_tol=1e-9)


@given(st.lists(floats, min_size=2, max_size=20))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    mean, n = sum(values) / len(values), len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    low, high = jackknife(lambda rows: float(rows.mean()), [[value] for value in values])
    assert math.isclose((high - low) / 2, 1.959964 * error, rel_tol=1e-6, abs_tol=1e-6)
    assert math.isclose((high + low) / 2, mean, rel_tol=1e-6, abs_tol=1e-6)
