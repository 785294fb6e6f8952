import inspect

import pytest
import torch
from diffusers.callbacks import PipelineCallback

from dnp_guard import Guard
from dnp_guard.hosts.diffusers.showing.caller_view import cover
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.conftest import STEPS, draw
from tests.policies import policy

CLEAN = {"star": 0.0}
SEES_ONE = [[{}, {}, {}], [{}, {"star": 0.9}, {}], CLEAN]


class Viewer:
    """A caller's own step callback, which keeps the latents that it receives."""

    def __init__(self, returns=lambda latents: latents):
        self.seen, self._returns = [], returns

    def __call__(self, pipe, step, timestep, tensors):
        self.seen.append(tensors["latents"].clone())
        tensors["latents"] = self._returns(tensors["latents"])
        return tensors


def run(pipe, how, script, viewer=None, **more):
    viewer = viewer or Viewer()
    guard = Guard(policy(preview={"user_previews": how}, **more), vlm=ScriptedBackend(list(script)))
    with guard.attached(pipe):
        images = draw(pipe, callback_on_step_end=viewer)
    return images, viewer.seen


def default(pipe, name):
    return inspect.signature(type(pipe).__call__).parameters[name].default


def unguarded(pipe):
    viewer = Viewer()
    return draw(pipe, callback_on_step_end=viewer), viewer.seen


@pytest.mark.models
class TestACallersCallback:
    @pytest.mark.parametrize("how", ["withhold", "blur", "allow"])
    def test_it_sees_every_latent_when_nothing_is_found(self, pipe, how):
        images, seen = run(pipe, how, [CLEAN])
        plain, true = unguarded(pipe)
        assert (images == plain).all()
        assert {torch.equal(a, b) for a, b in zip(seen, true, strict=True)} == {True}

    def test_withheld_latents_are_empty_and_only_of_the_image_concerned(self, pipe):
        _, seen = run(pipe, "withhold", SEES_ONE)
        empty = [[bool((row == 0).all()) for row in latents] for latents in seen]
        first = next(step for step, rows in enumerate(empty) if rows[1])
        assert empty[:first] == [[False] * 3] * first
        assert empty[first] == [False, True, False]

    def test_blurred_latents_keep_their_mean_and_little_else(self, pipe):
        _, true = run(pipe, "allow", SEES_ONE)
        _, seen = run(pipe, "blur", SEES_ONE)
        changed = [step for step in range(STEPS) if not torch.equal(true[step][1], seen[step][1])]
        assert changed
        for step in changed:
            torch.testing.assert_close(seen[step][1].mean((1, 2)), true[step][1].mean((1, 2)), atol=0.05, rtol=0.05)
            assert seen[step][1].std() < true[step][1].std()
            assert torch.equal(seen[step][0], true[step][0])

    @pytest.mark.parametrize("how", ["withhold", "blur"])
    def test_the_images_are_the_same_as_when_it_sees_everything(self, pipe, how):
        covered, _ = run(pipe, how, SEES_ONE)
        allowed, _ = run(pipe, "allow", SEES_ONE)
        assert (covered == allowed).all()

    def test_its_own_change_counts_for_the_images_it_sees_and_for_no_other(self, pipe):
        brighter = run(pipe, "withhold", SEES_ONE, Viewer(lambda latents: latents + 0.01))[0]
        alone = run(pipe, "allow", SEES_ONE, Viewer(lambda latents: latents + 0.01))[0]
        assert (brighter[0] == alone[0]).all()
        assert not (brighter[1] == alone[1]).all()

    def test_in_shadow_it_sees_everything(self, pipe):
        _, seen = run(pipe, "withhold", SEES_ONE, mode="shadow")
        _, true = unguarded(pipe)
        assert {torch.equal(a, b) for a, b in zip(seen, true, strict=True)} == {True}

    def test_while_the_guard_cannot_look_nothing_is_seen_under_closed(self, pipe):
        _, seen = run(pipe, "withhold", [{"error": "unavailable"}], on_failure="closed")
        assert (seen[-2] == 0).all()

    def test_while_the_guard_cannot_look_everything_is_seen_under_open(self, pipe):
        _, seen = run(pipe, "withhold", [{"error": "unavailable"}], on_failure="open")
        assert not (seen[-2] == 0).any()

    def test_one_that_is_given_by_its_place_sees_no_more(self, pipe):
        viewer, names = Viewer(), list(inspect.signature(type(pipe).__call__).parameters)[1:]
        arguments = {"prompt": "a red circle", "num_inference_steps": STEPS, "callback_on_step_end": viewer}
        places = [arguments.get(name, default(pipe, name)) for name in names[: names.index("callback_on_step_end") + 1]]
        with Guard(policy(), vlm=ScriptedBackend([{"star": 0.9}])).attached(pipe):
            pipe(*places)
        assert [bool((latents == 0).all()) for latents in viewer.seen][-2:] == [True, True]

    def test_a_callback_object_of_diffusers_still_gets_the_tensors_it_asks_for(self, pipe):
        class Named(PipelineCallback):
            got = frozenset()
            tensor_inputs = ["latents", "prompt_embeds"]

            def callback_fn(self, pipe, step, timestep, tensors):
                self.got |= tensors.keys()
                return tensors

        named = Named(cutoff_step_ratio=0.5)
        with Guard(policy(), vlm=ScriptedBackend(SEES_ONE)).attached(pipe):
            draw(pipe, callback_on_step_end=named)
        assert named.got == {"latents", "prompt_embeds"}


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 4, 3, 8, 8), (2, 16, 4)])
@pytest.mark.parametrize("how", ["withhold", "blur"])
def test_latents_of_every_shape_are_covered(shape, how):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    covered = cover(latents, ["allow", how])
    assert torch.equal(covered[0], latents[0])
    assert covered[1].std() < latents[1].std() / 2


def test_latents_that_are_not_one_an_image_are_covered_as_the_strictest_asks():
    latents = torch.ones(6, 4, 8, 8)
    assert (cover(latents, ["blur", "withhold", "allow"]) == 0).all()
