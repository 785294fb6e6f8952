from __future__ import annotations

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import parse_policy
from dnp_guard.policy.read.defaults import CHANGED, changed_defaults
from dnp_guard.policy.read.migrate import migrate
from tests.policies import policy as made

FORMAT_0 = b"""\
format: 0
name: old
schedule: [0.2, 0.4]
terms: {star: [a star, a nova]}
"""


def from_0(data):
    """Upgrade a policy from an invented format 0, which had other keys for the due steps and the categories."""
    terms = data.pop("terms")
    return {
        "name": data["name"],
        "queries": {"steps": data["schedule"]},
        "categories": [{"id": name, "look_for": terms[name], "negative": ["${found}"]} for name in terms],
    }


def test_an_older_policy_is_brought_up_to_a_policy_that_checks():
    policy = parse_policy(migrate(FORMAT_0, "old.yaml", {0: from_0}), "old.yaml")
    assert policy.format == 1
    assert policy.name == "old"
    assert policy.queries.steps == (0.2, 0.4)
    assert policy.category("star").terms == ("a star", "a nova")


def test_upgrades_follow_one_another():
    steps = {-1: lambda data: {**data, "schedule": [0.5]}, 0: from_0}
    policy = parse_policy(migrate(FORMAT_0.replace(b"format: 0", b"format: -1"), "old.yaml", steps), "old.yaml")
    assert policy.queries.steps == (0.5,)


def test_a_policy_of_the_present_format_stays_as_it_is(minimal):
    assert migrate(minimal.encode(), "p.yaml") is None


@pytest.mark.parametrize("text", ["format: 7\n", "format: true\n", "name: a\n", "format: one\n"])
def test_a_format_that_no_upgrade_begins_with_is_reported_at_its_place(text):
    with pytest.raises(PolicyError) as caught:
        migrate(text.encode(), "p.yaml", {0: from_0})
    (problem,) = caught.value.problems
    assert problem.line == 1
    assert problem.code == "unknown-format"


def test_a_file_with_aliases_is_refused_before_it_is_upgraded():
    with pytest.raises(PolicyError, match="written elsewhere"):
        migrate(b"format: 0\na: &x 1\nb: *x\n", "p.yaml", {0: from_0})


@pytest.mark.parametrize(("section", "key", "before"), CHANGED)
def test_a_default_that_has_changed_is_told_of_a_policy_that_leaves_it_out(section, key, before):
    messages = [text for text in changed_defaults(b"format: 1\nname: p\n", "p.yaml") if f"`{section}.{key}`" in text]
    assert [before in text for text in messages] == [True]
    assert type(made().question)().model_dump()[key] != before


def test_a_policy_that_says_it_itself_or_extends_another_is_told_of_no_changed_default():
    own = "question: {template: '${term}?', allowed_template: '${allowed}?'}\n"
    assert list(changed_defaults(f"format: 1\nname: p\n{own}".encode(), "p.yaml")) == []
    assert list(changed_defaults(b"format: 1\nname: p\nextends: q.yaml\n", "p.yaml")) == []
