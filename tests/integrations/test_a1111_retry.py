"""An image gets a second attempt in the stand-in for AUTOMATIC1111: the extension samples its batch again."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests.hosts.a1111_host import Processing
from tests.policies import bolt, star

pytestmark = pytest.mark.models

CLEAN, STAR = {"star": 0.0}, {"star": 0.9}
FIRST = [CLEAN] * 4
"""The number of looks of an attempt before its end."""
SHOWN = [[{}, STAR, {}]]
"""A final look in which the second image of three shows a star."""
SECOND = {"categories": [star(still_present="retry")]}


def job(**changes):
    return Processing(**{"prompt": "a red circle at night", "batch_size": 3, "steps": 10, **changes})


def same(first, other):
    return [bool(np.array_equal(np.asarray(one), np.asarray(two))) for one, two in zip(first, other, strict=True)]


def grey(picture):
    return [len(set(pixel)) for pixel in np.asarray(picture).reshape(-1, 3).tolist()].count(1) == 32 * 32


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "Heun"])
def test_an_image_is_drawn_again_and_the_others_keep_their_bits(guarded, plain, sampler):
    guarded.serve([*FIRST, *SHOWN, CLEAN], **SECOND)
    unguarded = plain(**vars_of(sampler)).images
    host = guarded.host()
    drawn = host.process(job(sampler_name=sampler))
    assert same(unguarded, drawn.images) == [True, False, True]
    assert host.errors == []
    assert [(record["image"], record["attempt"]) for record in guarded.records("request.retried")] == [(1, 2)]
    ended = [(record["decision"], record.get("attempts")) for record in guarded.records("request.finished")]
    assert ended == [("clean", None), ("steered", 2), ("clean", None)]


def vars_of(sampler):
    return {"prompt": "a red circle at night", "batch_size": 3, "steps": 10, "sampler_name": sampler}


def test_the_infotext_says_that_it_was_steered_from_the_start(guarded):
    guarded.serve([*FIRST, *SHOWN, CLEAN], **SECOND)
    assert "DNP Guard: steered star from the start" in guarded.host().process(job()).infotexts[1]


def test_an_image_to_start_from_is_drawn_again_too(guarded):
    from PIL import Image

    guarded.serve([CLEAN] * 4 + [*SHOWN, CLEAN], **SECOND)
    drawn = guarded.host().process(job(init_images=[Image.new("RGB", (32, 32), "red")]))
    assert [grey(picture) for picture in drawn.images] == [False] * 3
    assert [record["attempt"] for record in guarded.records("request.retried")] == [2]


def test_an_image_that_shows_it_again_is_withheld(guarded):
    guarded.serve([*FIRST, *SHOWN, *FIRST, STAR], **SECOND)
    drawn = guarded.host().process(job())
    assert [grey(picture) for picture in drawn.images] == [False, True, False]


def test_with_a_hires_fix_it_meets_what_is_done_otherwise_and_the_record_says_why(guarded):
    guarded.serve([CLEAN] * 4 + SHOWN, **SECOND)
    guarded.host().process(job(enable_hr=True))
    ended = guarded.records("request.finished")
    assert [record["decision"] for record in ended] == ["clean", "blocked", "clean"]
    assert ended[1]["reason"] == "the host cannot draw again"


def test_a_retry_that_fails_ends_as_otherwise_and_the_others_stay(guarded, plain):
    guarded.serve([*FIRST, *SHOWN, CLEAN], **SECOND)
    unguarded = plain(**vars_of("Euler")).images
    host = guarded.host()
    begin, calls = host.sample, []

    def failing(p, **given):
        calls.append(p)
        if len(calls) > 1:
            raise RuntimeError("no more")
        return begin(p, **given)

    host.sample = failing
    drawn = host.process(job())
    assert same(unguarded, drawn.images)[::2] == [True, True]
    assert grey(drawn.images[1])
    ended = guarded.records("request.finished")
    assert ended[1]["reason"] == "the host did not draw it again"


@pytest.mark.parametrize("looks", [[*FIRST, {"error": "timeout"}], [{"error": "timeout"}]])
def test_of_a_retry_that_nobody_looks_at_no_pixel_is_delivered(guarded, plain, looks):
    guarded.serve([*FIRST, *SHOWN, *looks], retries={"otherwise": "monitor"}, **SECOND)
    drawn = guarded.host().process(job())
    assert [(record["image"], record["attempt"]) for record in guarded.records("request.retried")] == [(1, 2)]
    assert same(plain(**vars_of("Euler")).images, drawn.images) == [True] * 3
    assert "DNP Guard: monitored," in drawn.infotexts[1]


def test_a_retry_that_cannot_be_shown_takes_nothing_from_the_verdicts_before(guarded, monkeypatch):
    shown = [[{"bolt": 0.9}, STAR, {}]]
    guarded.serve([*FIRST, *shown, CLEAN], categories=[star(still_present="retry"), bolt()], on_failure="open")
    host = guarded.host()
    pictures = sys.modules["dnp_guard_extension.job"].pictures
    finished, calls = pictures.from_tensor, []

    def failing(image):
        calls.append(image)
        if len(calls) > 3:
            raise RuntimeError("no more")
        return finished(image)

    monkeypatch.setattr(pictures, "from_tensor", failing)
    drawn = host.process(job())
    assert len(calls) > 3
    assert [grey(picture) for picture in drawn.images] == [True, True, False]


def test_a_video_that_is_drawn_again_is_delivered_with_all_its_new_frames_and_no_other(guarded, monkeypatch):
    guarded.serve([*FIRST, [{}, STAR], CLEAN], **SECOND)
    host = guarded.host()
    job_of = sys.modules["dnp_guard_extension.job"].Job
    batch_done = job_of.batch_done
    frames, again = torch.zeros(6, 3, 32, 32), torch.ones(6, 3, 32, 32)

    def videos_done(self, _):
        redraw = self._redraw
        self._redraw = lambda: (redraw(), again)[1]  # sample as the host does
        batch_done(self, frames)

    monkeypatch.setattr(job_of, "batch_done", videos_done)
    host.process(job(batch_size=2))
    assert [record["decision"] for record in guarded.records("request.finished")] == ["clean", "steered"]
    assert [bool((frame == 1).all()) for frame in frames] == [False] * 3 + [True] * 3
