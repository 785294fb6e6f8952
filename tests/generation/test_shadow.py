"""In shadow mode, a finding is reported as the decision that enforcing would have made, never as nothing seen."""

from __future__ import annotations

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.audit.read.report import document, markdown
from dnp_guard.audit.read.summary import summarise
from dnp_guard.types import Outcome
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import policy, star
from tests.sampler import denoise, finish, start

SEEN = [{"star": 0.99}]
GONE = [{"star": 0.99}, {}]


def generated(of, script):
    """Run a guarded generation of one image, and return its report and its audit records."""
    sink = MemorySink()
    with Guard(of, vlm=ScriptedBackend(script), audit=sink) as guard:
        driver = start(guard)
        denoise(driver)
        finish(driver)
        guard.settle()
    return driver.report.images[0], sink.records


@pytest.mark.parametrize(
    ("changes", "script", "would"),
    [
        ({}, GONE, Outcome.STEERED),
        ({"still_present": "block"}, SEEN, Outcome.BLOCKED),
        ({"still_present": "blur"}, SEEN, Outcome.BLURRED),
        ({"action": "monitor", "still_present": "monitor"}, SEEN, Outcome.MONITORED),
        ({}, [{}], None),
    ],
)
@pytest.mark.parametrize("mode", ["policy", "category"])
def test_an_image_in_shadow_says_what_it_would_have_come_to(mode, changes, script, would):
    if mode == "policy":
        image, records = generated(policy(mode="shadow", categories=[star(**changes)]), script)
    else:
        image, records = generated(policy(categories=[star(mode="shadow", **changes)]), script)
    enforced, _ = generated(policy(categories=[star(**changes)]), script)
    (finished,) = [record for record in records if record["event"] == "request.finished"]
    assert image.decision == Outcome.CLEAN
    assert image.would == would
    assert enforced.decision == (would or Outcome.CLEAN)
    assert finished.get("would") == ({"decision": would} if would else None)


def test_a_star_in_shadow_is_told_as_what_would_have_been():
    image, _ = generated(policy(mode="shadow", categories=[star()]), GONE)
    assert image.why == "in shadow: would have been steered, as Star was seen"


def test_a_steered_image_says_what_it_was_steered_away_from():
    image, _ = generated(policy(categories=[star()]), GONE)
    assert image.why == "Star was steered away from, and the last look does not find it"


def test_an_image_that_nobody_could_look_at_is_unasked_in_shadow():
    image, records = generated(policy(mode="shadow"), [{"error": "unavailable"}])
    assert image.decision is Outcome.UNASKED
    assert "no query was answered" in image.why
    assert records[-1]["decision"] == "unasked"


def test_an_image_that_nobody_could_look_at_follows_on_failure_where_something_is_enforced():
    image, _ = generated(policy(on_failure="open"), [{"error": "unavailable"}])
    assert image.decision is Outcome.FAILED_OPEN


def test_the_report_of_a_log_counts_in_shadow_what_would_have_been_and_not_as_clean():
    _, seen = generated(policy(mode="shadow", categories=[star()]), GONE)
    _, clean = generated(policy(mode="shadow", categories=[star()]), [{}])
    summary = summarise([*seen, *clean])
    assert document(summary)["would"] == {"steered": 1}
    page = markdown(summary, "log")
    assert "| clean | 1 |" in page
    assert "| would have been steered | 1 |" in page
