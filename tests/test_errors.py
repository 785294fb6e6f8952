from __future__ import annotations

import pytest

from dnp_guard.errors import did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "best"), [("treshold", "threshold"), ("ON-FAILURE", "on_failure"), ("Mode", "mode"), ("xyzzy", None)]
)
def test_the_nearest_name_is_found_whatever_its_case_and_dashes(name, best):
    assert nearest(name, ["threshold", "on_failure", "mode"]) == best


def test_all_names_are_offered_where_none_is_near():
    assert did_you_mean("xyzzy", ["a", "b"]) == "Valid here: `a`, `b`."
