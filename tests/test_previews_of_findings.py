"""A guard stores previews of the pictures that the policy says, such as those with findings."""

from __future__ import annotations

import jsonschema
import pytest
from PIL import Image

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.audit.chain import parse
from dnp_guard.audit.previews import folder, make_key
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.schema import schema
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star
from tests.sampler import denoise, finish, same, start

PICTURE = Image.new("RGB", (96, 96), "red")
HIDDEN = {"severity": "critical", "sensitive": True, "action": "block", "still_present": "block", "negative": []}
CHECK = jsonschema.Draft202012Validator(schema())


def generate(of, script, audit):
    """Run a generation, and return how many previews the guard could not store; None if it failed at none."""
    with Guard(of, vlm=ScriptedBackend(script), audit=audit) as guard:
        driver = start(guard, 2)
        denoise(driver, view=same(driver, PICTURE))
        finish(driver, picture=PICTURE)
        return guard.metrics.registry.get_sample_value("dnp_guard_degraded_total", {"reason": "audit_preview"})


def previews_kept(log):
    place = folder(log)
    return sorted(path.name.partition("-")[2] for path in place.iterdir()) if place.exists() else []


def finding_policy(**changes):
    return policy(audit={"previews": "found"}, **changes)


SEEN = [[{"star": 0.9}, {}], [{}, {"a storm": 0.9}], {}, {}, [{"star": 0.9}, {}]]


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_previews_are_kept_of_findings_alone_and_named_by_their_record(tmp_path, kind):
    log = tmp_path / "log"
    missed = generate(finding_policy(), SEEN, f"{kind}:{log}")
    records = [parse(line.data) for line in read_lines(log)]
    named = [record["preview"]["file"].partition("-")[2] for record in records if "preview" in record]
    assert missed == 0
    assert previews_kept(log) == ["0-2.png", "0-final.png", "1-4.png"]
    assert named == ["0-2.png", "1-4.png", "0-final.png"]
    assert {record["event"] for record in records if "preview" in record} == {"query"}
    assert [error.message for record in records for error in CHECK.iter_errors(record)] == []


def test_nothing_is_kept_where_the_policy_says_never(tmp_path):
    generate(policy(audit={"previews": "never"}), SEEN, tmp_path / "log")
    assert not folder(tmp_path / "log").exists()


def test_an_excused_finding_keeps_no_preview(tmp_path):
    excused = finding_policy(categories=[star(allowed=["a drawing"])])
    generate(excused, [{"star": 0.9, "a drawing": 0.9}], tmp_path / "log")
    assert previews_kept(tmp_path / "log") == []


def test_nothing_is_kept_of_an_image_from_the_look_at_which_something_sensitive_is_seen(tmp_path):
    of = finding_policy(categories=[star(), bolt(**HIDDEN)])
    generate(of, [[{"star": 0.9, "a bolt": 0.9}, {"star": 0.9}], {"star": 0.9}], tmp_path / "log")
    assert previews_kept(tmp_path / "log") == ["1-2.png", "1-4.png", "1-6.png", "1-8.png", "1-final.png"]


def test_the_previews_of_an_image_are_removed_when_something_sensitive_is_seen_in_it(tmp_path):
    of = finding_policy(categories=[star(), bolt(**HIDDEN)])
    looks = [{"star": 0.9}, [{"a bolt": 0.9}, {}], {}, {}, {}]
    generate(of, looks, tmp_path / "log")
    assert previews_kept(tmp_path / "log") == ["1-2.png"]


def test_a_look_that_did_not_ask_about_something_sensitive_keeps_nothing(tmp_path):
    of = finding_policy(categories=[star(), bolt(**HIDDEN, queries={"steps": [0.4]})])
    generate(of, [{"star": 0.9}], tmp_path / "log")
    assert previews_kept(tmp_path / "log") == ["0-4.png", "0-final.png", "1-4.png", "1-final.png"]


def test_a_preview_that_cannot_be_kept_is_counted_and_the_generation_goes_on(tmp_path):
    log = tmp_path / "log"
    folder(log).write_text("in the way")
    missed = generate(finding_policy(), SEEN, log)
    records = [parse(line.data) for line in read_lines(log)]
    ends = [record["event"] for record in records if record["event"] == "request.finished"]
    assert missed == 3
    assert len(ends) == 2
    assert [record for record in records if "preview" in record] == []


def test_without_a_log_in_a_file_a_preview_is_counted_as_not_kept():
    assert generate(finding_policy(), SEEN, MemorySink()) == 3


@pytest.mark.parametrize(("sample", "names"), [(1, ["0-final.png", "1-final.png"]), (0, [])])
def test_finished_images_without_a_finding_are_sampled(sample, names, tmp_path):
    generate(policy(audit={"previews": "sampled", "sample": sample}), [{}], tmp_path / "log")
    assert previews_kept(tmp_path / "log") == names


def test_findings_are_kept_beside_the_sample(tmp_path):
    generate(policy(audit={"previews": "sampled", "sample": 0}), SEEN, tmp_path / "log")
    assert previews_kept(tmp_path / "log") == ["0-2.png", "0-final.png", "1-4.png"]


def test_nothing_is_sampled_of_a_sensitive_category(tmp_path):
    of = policy(audit={"previews": "sampled", "sample": 1}, categories=[star(**HIDDEN), bolt()])
    generate(of, [[{"star": 0.9}, {}]], tmp_path / "log")
    assert previews_kept(tmp_path / "log") == ["1-final.png"]


def test_with_a_picture_key_nothing_is_kept_in_the_clear(tmp_path, monkeypatch):
    make_key(tmp_path / "key")
    monkeypatch.setenv("DNP_GUARD_PICTURE_KEY", str(tmp_path / "key"))
    generate(finding_policy(), SEEN, tmp_path / "log")
    assert previews_kept(tmp_path / "log") == ["0-2.sealed", "0-final.sealed", "1-4.sealed"]
