"""An image gets a second attempt in the stand-in for ComfyUI: the guard's wrapper repeats the sampler run."""

from __future__ import annotations

import sys

import pytest
import torch

from dnp_guard import Guard, Outcome
from dnp_guard.audit import MemorySink
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.comfyui_host import PREVIEWS
from tests.integrations.test_comfyui import STEPS, comfy, drawn, grey, pipe, same, with_nodes, workflow  # noqa: F401
from tests.policies import policy, star

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore:Should have:UserWarning:torchsde")]

CLEAN, STAR = {"star": 0.0}, {"star": 0.9}
FIRST = [CLEAN] * 4
"""The number of looks of an attempt before its end."""
SHOWN = [[{}, STAR, {}]]
"""A final look in which the second image of three shows a star."""


def inside(monkeypatch, script, *, retries=None, **more):
    """Let the nodes guard in this process, under a policy that retries an image with a star; return the guard."""
    of = policy(categories=[star(still_present="retry")], retries=retries or {})
    guard = Guard(of, vlm=ScriptedBackend(list(script)), **more)
    monkeypatch.setattr(sys.modules["comfyui_dnp_guard.inprocess"], "guard_for", lambda *_: guard)
    return guard


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m"])
def test_an_image_is_drawn_again_and_the_others_keep_their_bits(comfy, monkeypatch, sampler):  # noqa: F811
    plain, _ = drawn(comfy, workflow(sampler=sampler))
    guard = inside(monkeypatch, [*FIRST, *SHOWN, CLEAN])
    images, _ = drawn(comfy, with_nodes(workflow(sampler=sampler)))
    assert same(plain, images) == [True, False, True]
    assert [image.decision for image in guard.last.images] == [Outcome.CLEAN, Outcome.STEERED, Outcome.CLEAN]
    assert [image.attempts for image in guard.last.images] == [1, 2, 1]


def test_what_was_judged_is_not_looked_at_again_unless_it_was_changed(comfy, monkeypatch):  # noqa: F811
    sink = MemorySink()
    inside(monkeypatch, [*FIRST, *SHOWN, CLEAN], audit=sink)
    drawn(comfy, with_nodes(workflow()))
    assert sum(record["event"] == "request.started" for record in sink.records) == 1
    run = sys.modules["comfyui_dnp_guard.runs"].RUNS.latest("8")[0]
    assert not run.shows_other(run.judged)
    assert run.shows_other([picture.rotate(90) for picture in run.judged])


def test_an_image_that_shows_it_again_is_withheld(comfy, monkeypatch):  # noqa: F811
    inside(monkeypatch, [*FIRST, *SHOWN, *FIRST, STAR])
    images, outputs = drawn(comfy, with_nodes(workflow()))
    assert [grey(image) for image in images] == [False, True, False]
    assert "image 1: blocked star from the start (drawn 2 times)" in outputs["10"][0]


def test_without_a_vae_it_meets_what_is_done_otherwise_and_the_record_says_why(comfy, monkeypatch):  # noqa: F811
    sink = MemorySink()
    inside(monkeypatch, [*FIRST, *SHOWN], audit=sink)
    nodes = with_nodes(workflow())
    del nodes["8"]["inputs"]["vae"]
    images, _ = drawn(comfy, nodes)
    assert [grey(image) for image in images] == [False, True, False]
    finished = [record for record in sink.records if record["event"] == "request.finished"]
    assert finished[1]["reason"] == "the host cannot draw again"


def test_a_retry_that_raises_ends_as_otherwise(comfy, monkeypatch):  # noqa: F811
    guard = inside(monkeypatch, [*FIRST, *SHOWN, CLEAN], retries={"otherwise": "monitor"})
    begun = []

    def raising(self, images, *, begin=sys.modules["comfyui_dnp_guard.run"].Run.begin_again):
        begin(self, images)
        begun.append(images)
        raise RuntimeError("no more")

    monkeypatch.setattr(sys.modules["comfyui_dnp_guard.run"].Run, "begin_again", raising)
    plain, _ = drawn(comfy, workflow())
    images, _ = drawn(comfy, with_nodes(workflow()))
    assert begun == [(1,)]
    assert same(plain, images) == [True] * 3
    assert guard.last.degraded == ("retry_failed",)


def test_the_hosts_preview_sees_a_retry_as_it_sees_any_run_and_nothing_of_the_other_images(comfy, monkeypatch):  # noqa: F811
    inside(monkeypatch, [*FIRST, *SHOWN, CLEAN])
    drawn(comfy, with_nodes(workflow()))
    assert len(PREVIEWS) == 2 * STEPS
    assert all(not bool(preview[[0, 2]].any()) for preview in PREVIEWS[STEPS:])


def test_random_numbers_end_as_after_one_run(comfy, monkeypatch):  # noqa: F811
    ends = []
    for script in ([CLEAN], [*FIRST, *SHOWN, CLEAN]):
        inside(monkeypatch, script)
        torch.manual_seed(7)
        drawn(comfy, with_nodes(workflow(sampler="euler_ancestral")))
        ends.append(torch.rand(1))
    assert ends[0] == ends[1]


def test_through_the_service_an_image_is_drawn_again(comfy, guarded):  # noqa: F811
    guarded.serve([*FIRST, *SHOWN, CLEAN], categories=[star(still_present="retry")])
    plain, _ = drawn(comfy, workflow())
    images, outputs = drawn(comfy, with_nodes(workflow(), vlm="", mode="service"))
    assert same(plain, images) == [True, False, True]
    assert [(record["image"], record["attempt"]) for record in guarded.records("request.retried")] == [(1, 2)]
    ended = [(record["decision"], record.get("attempts")) for record in guarded.records("request.finished")]
    assert ended == [("clean", None), ("steered", 2), ("clean", None)]
    assert "drawn 2 times" in outputs["10"][0]


def test_through_the_service_an_image_that_shows_it_again_is_withheld(comfy, guarded):  # noqa: F811
    guarded.serve([*FIRST, *SHOWN, *FIRST, STAR], categories=[star(still_present="retry")])
    images, _ = drawn(comfy, with_nodes(workflow(), vlm="", mode="service"))
    assert [grey(image) for image in images] == [False, True, False]


def test_a_service_that_knows_nothing_of_it_is_asked_for_nothing(comfy, guarded, monkeypatch):  # noqa: F811
    monkeypatch.setattr("dnp_guard.server.app.FEATURES", ("inputs",))
    guarded.serve([*FIRST, *SHOWN], categories=[star(still_present="retry")])
    images, _ = drawn(comfy, with_nodes(workflow(), vlm="", mode="service"))
    assert [grey(image) for image in images] == [False, True, False]
    assert guarded.records("request.retried") == []


@pytest.mark.parametrize("through", ["inside", "service"])
def test_of_a_retry_that_nobody_looks_at_no_pixel_is_delivered(comfy, guarded, monkeypatch, through):  # noqa: F811
    looks = [*FIRST, *SHOWN, *FIRST, {"error": "timeout"}]
    plain, _ = drawn(comfy, workflow())
    if through == "inside":
        inside(monkeypatch, looks, retries={"otherwise": "monitor"})
        images, outputs = drawn(comfy, with_nodes(workflow()))
    else:
        guarded.serve(looks, categories=[star(still_present="retry")], retries={"otherwise": "monitor"})
        images, outputs = drawn(comfy, with_nodes(workflow(), vlm="", mode="service"))
    assert same(plain, images) == [True] * 3
    assert "image 1: monitored (drawn 2 times)" in outputs["10"][0]
