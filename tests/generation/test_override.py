from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.generation import override
from tests.policies import bolt, policy, star

NOW = datetime(2027, 1, 1, tzinfo=UTC)
OPEN = override.Override("open", NOW + timedelta(minutes=30), "A. Person", "The model is down.")


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "state" / "override.json"
    override.write(OPEN, file)
    return file


def test_an_override_is_in_force_until_its_time(file):
    assert override.in_force(file, NOW) == OPEN
    assert override.in_force(file, OPEN.until) is None


def test_without_a_file_none_is_in_force(tmp_path):
    assert override.in_force(tmp_path / "absent", NOW) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"on_failure": "open"}', "\xff"])
def test_a_file_that_says_no_override_is_none(file, text):
    file.write_text(text)
    assert override.in_force(file, NOW) is None


def test_an_unknown_value_is_none(file):
    file.write_text(file.read_text().replace("open", "ajar"))
    assert override.in_force(file, NOW) is None


def test_an_override_that_would_last_for_days_is_none(file):
    assert override.in_force(file, NOW - timedelta(days=2)) is None


def test_a_policy_under_an_override_keeps_its_digest():
    changed = override.overridden(policy(), OPEN)
    assert changed.on_failure == "open"
    assert changed.digest == policy().digest


def test_a_policy_with_a_sensitive_category_is_never_overridden():
    of = policy(categories=[star(sensitive=True, action="block", still_present="block"), bolt()])
    assert override.overridden(of, OPEN) is of


def test_without_a_home_none_is_in_force():
    assert override.in_force(None, NOW) is None


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("24h", 86400)])
def test_an_override_may_last_a_day(text, seconds):
    assert override.length(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["0m", "25h", "2d"])
def test_an_override_of_no_time_or_over_a_day_is_refused(text):
    with pytest.raises(DnpGuardError, match="not up to 24 hours"):
        override.length(text)
