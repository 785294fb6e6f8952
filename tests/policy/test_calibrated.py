from __future__ import annotations

import json

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import Policy, load_policy, strictest
from dnp_guard.policy.compare.diff import changes
from dnp_guard.policy.force.admission import measured_on_another
from dnp_guard.policy.read.calibrated import MAX_CALIBRATION
from dnp_guard.policy.read.loading import load

POLICY = """\
format: 1
name: p
categories:
  - {{id: star, negative: [star], calibration: {file}{more}}}
"""


def measured(begin, end, threshold, **more):
    return {"begin": begin, "end": end, "n": 9, "positives": 4, "threshold": threshold, "roc": [], **more}


def calibration(*ranges, category="star", **more):
    return {"format": 1, "vlm": {"name": "m", "revision": "1"}, "categories": {category: ranges}, **more}


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a policy beside a calibration file, and returns the policy's path."""

    def written(document, *, file="c.json", more=""):
        text = document if isinstance(document, str) else json.dumps(document)
        (tmp_path / "c.json").write_text(text)
        path = tmp_path / "p.yaml"
        path.write_text(POLICY.format(file=file, more=more))
        return path

    return written


TWO = calibration(measured(0, 0.3, 0.8), measured(0.3, 1, 0.4))


def test_the_thresholds_are_those_of_the_file(written):
    star = load_policy(written(TWO)).category("star")
    assert [(span.begin, span.end, span.value) for span in star.threshold] == [(0, 0.3, 0.8), (0.3, 1, 0.4)]
    assert star.final_threshold == 0.4
    assert str(star.calibration) == "m 1 (c.json)"


def test_a_threshold_of_the_category_s_own_stands(written):
    star = load_policy(written(TWO, more=", threshold: 0.7")).category("star")
    assert star.threshold == 0.7
    assert star.calibration.vlm_revision == "1"


def test_the_digest_includes_the_calibration(written):
    first = load_policy(written(TWO)).digest
    other_revision = TWO | {"vlm": {"name": "m", "revision": "2"}}
    other_threshold = calibration(measured(0, 1, 0.4))
    assert len({first, *(load_policy(written(content)).digest for content in (other_revision, other_threshold))}) == 3


def test_the_resolved_policy_is_whole_without_the_file(written):
    policy = load_policy(written(TWO))
    assert Policy.model_validate(policy.resolved()) == policy


def test_the_file_is_one_of_those_that_the_policy_was_made_from(written):
    loaded = load(written(TWO))
    assert [path.name for path in loaded.inputs] == ["p.yaml", "c.json"]


@pytest.mark.parametrize(
    ("document", "file", "says"),
    [
        (TWO, "absent.json", "no file `absent.json`"),
        (TWO, "../c.json", "outside"),
        (TWO, "/etc/hostname", "outside"),
        ("{", "c.json", "not a calibration file"),
        (TWO | {"format": 2}, "c.json", "format"),
        (" " * (MAX_CALIBRATION + 1), "c.json", "over 4096 KiB"),
        (calibration(measured(0, 1, 0.5), category="moon"), "c.json", "no category `star`"),
        (calibration(measured(0, 0.5, 0.5)), "c.json", "do not cover"),
        (calibration(measured(0, 1, 0.5, positives=0)), "c.json", "lacks pictures with the category"),
        (calibration(measured(0, 1, 0.5, positives=9)), "c.json", "lacks pictures without the category"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_problem_at_its_name(written, document, file, says):
    with pytest.raises(PolicyError) as caught:
        load_policy(written(document, file=file))
    (problem,) = caught.value.problems
    assert problem.code == "bad-calibration"
    assert problem.line == 4
    assert says in problem.message


def test_a_link_out_of_the_folder_is_not_followed(written, tmp_path):
    path = written(TWO)
    outside = tmp_path.parent / f"{tmp_path.name}.json"
    outside.write_text(json.dumps(TWO))
    (tmp_path / "c.json").unlink()
    (tmp_path / "c.json").symlink_to(outside)
    with pytest.raises(PolicyError, match="outside"):
        load_policy(path)


def test_a_calibration_without_its_file_is_refused():
    with pytest.raises(ValueError, match="calibration file beside the policy"):
        Policy.model_validate(
            {"format": 1, "name": "p", "categories": [{"id": "star", "negative": ["star"], "calibration": "c.json"}]}
        )


def test_a_sensitive_category_is_not_calibrated_on(written):
    with pytest.raises(PolicyError, match="cannot be calibrated"):
        load_policy(written(TWO, more=", sensitive: true"))


def test_an_extension_s_calibration_takes_the_place_of_the_base_s_threshold(written, tmp_path):
    written(TWO)
    (tmp_path / "base.yaml").write_text(
        "format: 1\nname: b\ncategories: [{id: star, negative: [star], threshold: 0.1}]\n"
    )
    over = tmp_path / "over.yaml"
    over.write_text("format: 1\nname: o\nextends: base.yaml\ncategories: [{id: star, calibration: c.json}]\n")
    assert [span.value for span in load_policy(over).category("star").threshold] == [0.8, 0.4]


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [("m", "1", []), ("other name", "1", []), ("m", "2", ["star"]), ("m", "unknown", ["star"])],
)
def test_another_revision_is_another_model(written, name, revision, expected):
    comparison = measured_on_another(load_policy(written(TWO)), name, revision)
    assert [category.id for category in comparison] == expected


def test_without_revisions_the_name_tells(written):
    policy = load_policy(written(TWO | {"vlm": {"name": "m", "revision": "unknown"}}))
    assert [len(measured_on_another(policy, name, "unknown")) for name in ("m", "n")] == [0, 1]


def test_a_comparison_tells_of_a_calibration(written):
    before = load_policy(written(TWO))
    after = load_policy(written(TWO | {"vlm": {"name": "m", "revision": "2"}}))
    assert [str(change) for change in changes(before, after)] == ["star: measured on m 2 (c.json)"]


def test_the_strictest_of_two_policies_keeps_a_calibration(written):
    measured_ = load_policy(written(TWO))
    plain = Policy.model_validate({**measured_.resolved(), "categories": [{"id": "star", "negative": ["star"]}]})
    assert strictest(plain, measured_).category("star").calibration == measured_.category("star").calibration
