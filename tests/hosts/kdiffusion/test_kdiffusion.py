import numpy as np
import pytest
import torch

from dnp_guard import CannotSteer, Guard, Outcome
from dnp_guard.audit import MemorySink
from dnp_guard.hosts.kdiffusion import KDiffusion
from dnp_guard.lab.evaluate.album import Album
from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.evaluate.intervals import wilson
from dnp_guard.lab.world.captions import prompts
from dnp_guard.preview.autoencoder import to_tensor
from dnp_guard.steering import guidance
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.bits import same
from tests.hosts.ksampling import (
    SAMPLERS,
    SCALE,
    Denoiser,
    WebUIDenoiser,
    noise,
    run,
    sampler,
    target,
)
from tests.policies import policy, star

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore:Should have:UserWarning:torchsde")]

FEW, ENOUGH = 8, 15
WORDS = ["a red circle at night", "a blue square in a room", "a green cross on the beach"]
CLEAN = {"star": 0.0}
SECOND = [{}, {"star": 0.9}, {}]
SEES_A_STAR_ONCE = [[{}, {}, {}], SECOND, CLEAN]


@pytest.fixture(scope="module")
def sigmas(shared_pipe):
    return Denoiser(shared_pipe).sigmas(FEW)


@pytest.fixture
def host(shared_pipe):
    return target(shared_pipe)[0]


def guard(script=(CLEAN,), of=None, **arguments):
    return Guard(of or policy(), vlm=ScriptedBackend(list(script)), **arguments)


def draw(name, host, words, sigmas, texts=WORDS, seed=0, **more):
    return np.stack([np.asarray(picture) for picture in run(name, host, words, sigmas, texts, seed, **more)])


class TestEverySampler:
    @pytest.mark.parametrize("name", SAMPLERS)
    def test_is_bit_identical_where_nothing_is_found(self, host, words, sigmas, name):
        plain = draw(name, host, words, sigmas)
        with guard().attached(host) as watching:
            watched = draw(name, host, words, sigmas)
        assert (plain == watched).all()
        assert len(watching.last.images[0].queries) == 5

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_changes_only_the_image_in_which_something_is_found(self, host, words, sigmas, name):
        plain = draw(name, host, words, sigmas)
        with guard(SEES_A_STAR_ONCE).attached(host):
            steered = draw(name, host, words, sigmas)
        assert same(plain, steered) == [True, False, True]

    def test_steers_the_embedded_model_away_from_what_it_draws(self, shared_pipe):
        host, denoiser, words = target(shared_pipe)
        texts = [prompt.text for prompt in prompts("attack", 3, 7)]
        detector, album = load_detector(), Album()
        plain, guarded = [], []
        with Guard("glyphs", vlm="glyphs", plugins=[album]) as watching:
            for name in SAMPLERS:
                plain += run(name, host, words, denoiser.sigmas(ENOUGH), texts, 100)
                with watching.attached(host):
                    run(name, host, words, denoiser.sigmas(ENOUGH), texts, 100)
                guarded += album.final
        before, after = (
            sum(bool(seen.forbidden) for seen in detect(detector, to_tensor(pictures) * 2 - 1))
            for pictures in (plain, guarded)
        )
        n = len(plain)
        assert wilson(after, n)[1] < wilson(before, n)[0]

    @pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
    def test_one_that_chooses_its_own_steps_is_looked_at_by_progress(self, host, words, sigmas, name):
        low, high = float(sigmas[-2]), float(sigmas[0])
        count = {"dpm_fast": (12,), "dpm_adaptive": ()}[name]
        extra = {"cond": words.encode(WORDS), "uncond": words.encode([""] * 3), "cond_scale": SCALE}

        def draw_it():
            x = noise((3, 8, 8, 8), sigmas, 0)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return host.sample(sampler(name), x, low, high, *count, extra_args=extra, disable=True)

        plain = draw_it()
        with guard(SEES_A_STAR_ONCE).attached(host) as watching:
            steered = draw_it()
        changed = [not unchanged for unchanged in same(map(np.asarray, plain), map(np.asarray, steered))]
        # The length of an adaptive step depends on the whole batch.
        assert changed == [name == "dpm_adaptive", True, name == "dpm_adaptive"]
        looked = [look.sigma for look in watching.last.images[0].queries[:-1]]
        assert len(looked) > 1
        assert looked[0] <= high * (low / high) ** 0.19


class TestSteering:
    @pytest.fixture
    def at(self, words):
        """Return arguments for one denoiser call of three images: x, sigma 2, and the sampler's further arguments."""
        extra = {"cond": words.encode(WORDS), "uncond": words.encode([""] * 3), "cond_scale": SCALE}
        return noise((3, 8, 8, 8), [2.0], 0), torch.full((3,), 2.0), extra

    def steered(self, host, at, of, script=(SECOND,)):
        """Run two steps under a guard, and return the guided output of the denoiser at the step after the look."""
        x, sigma, extra = at
        with (
            guard(script, of).attached(host),
            host.generation(3, [4.0, 2.0, 1.0, 0.0], negative_prompts=[""] * 3, extra_args=extra) as (model, going),
        ):
            for index in (1, 2):
                going.callback({"i": index, "sigma": 4.0, "denoised": torch.zeros(3, 8, 8, 8)})
            return model(x, sigma, **extra)

    def branches(self, words, at):
        """Return the denoiser's outputs for the negative, the unconditional and the prompt, for the second image."""
        x, sigma, extra = at
        denoiser = Denoiser(words.pipe)
        given = words.encode(["star"]), extra["uncond"][1:2], extra["cond"][1:2]
        return [denoiser(x[1:2], sigma[1:2], condition) for condition in given]

    def close(self, first, other):
        np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-5)

    def test_separate_adds_its_term_to_what_was_guided(self, host, words, at):
        d_n, d_u, d_c = self.branches(words, at)
        got = self.steered(host, at, policy())
        self.close(got[1:2], guidance.classifier_free(d_u, d_c, SCALE) + guidance.separate(d_n, d_u, 6.0))

    def test_replace_takes_the_unconditional_slot(self, host, words, at):
        d_n, _, d_c = self.branches(words, at)
        got = self.steered(host, at, replacing())
        self.close(got[1:2], guidance.classifier_free(d_n, d_c, SCALE))

    @pytest.mark.parametrize("mode", ["separate", "replace"])
    def test_the_other_images_keep_every_bit(self, host, at, mode):
        x, sigma, extra = at
        of = replacing() if mode == "replace" else policy(guidance={"mode": mode})
        plain = host.model(x, sigma, **extra)
        assert [bool((a == b).all()) for a, b in zip(self.steered(host, at, of), plain, strict=True)] == [
            True,
            False,
            True,
        ]

    def test_the_model_itself_answers_where_no_other_is_given(self, shared_pipe, host, at):
        alone = target(shared_pipe, denoise=None)[0]
        self.close(self.steered(alone, at, policy()), self.steered(host, at, policy()))

    def test_a_model_without_guidance_is_steered_from_its_only_prediction(self, shared_pipe, words, at):
        x, sigma, extra = at
        denoiser = Denoiser(shared_pipe)
        host = KDiffusion(denoiser, encode=words.encode, decode=words.decode)
        d_n, _, d_c = self.branches(words, at)
        got = self.steered(host, (x, sigma, {"cond": extra["cond"]}), policy())
        self.close(got[1:2], d_c + guidance.separate(d_n, d_c, 6.0))

    def test_nothing_is_evaluated_twice_where_nothing_is_found(self, shared_pipe, words, at):
        host, denoiser, _ = target(shared_pipe)
        self.steered(host, at, policy(), [CLEAN])
        assert denoiser.images == 6

    def test_the_sub_step_of_the_step_that_was_looked_at_is_not_steered(self, shared_pipe, words, sigmas):
        host, denoiser, _ = target(shared_pipe)
        counted = []
        with guard(SEES_A_STAR_ONCE).attached(host):
            run("heun", host, words, sigmas, WORDS, 0, callback=lambda info: counted.append(denoiser.images))
        per_step = np.diff(counted)
        # Looks follow steps 2, 3, 5 and 6 of 8; the second look sees a star, the third does not.
        assert per_step.tolist() == [12, 12, 12, 12 + 2, 12 + 4, 12 + 2, 12]

    def test_negatives_of_different_lengths_steer_the_images_of_one_batch(self, shared_pipe, words, sigmas):
        host, _, _ = target(shared_pipe, encode=lambda texts: words.encode(texts)[:, : len(texts[0])])
        plain = draw("euler", host, words, sigmas)
        with guard([[{}, {"star": 0.9}, {"a bolt": 0.9}]]).attached(host) as watching:
            steered = draw("euler", host, words, sigmas)
        assert not watching.last.degraded
        assert [[part.words for _, part in image.negatives] for image in watching.last.images] == [
            [],
            [("star",)],
            [("bolt", "a bolt")],
        ]
        assert same(plain, steered) == [True, False, False]

    def test_reuse_counts_steps_and_not_their_sub_steps(self, shared_pipe, words, sigmas):
        host, denoiser, _ = target(shared_pipe)
        of = policy(queries={"steps": [1], "of": FEW, "final": False}, guidance={"hold": 9, "reuse": 2})
        counted = []
        with guard([SECOND], of).attached(host):
            run("heun", host, words, sigmas, WORDS, 0, callback=lambda info: counted.append(denoiser.images))
        # The negative steers from step 2 on; it is evaluated first in steps 2, 4 and 6.
        assert np.diff(counted).tolist() == [12, 12 + 2, 12, 12 + 2, 12, 12 + 2, 12]


class TestTheWebUIsDenoiser:
    """The guard works with a CFG denoiser as in A1111, with prompts composed with ``AND`` and a counter of calls."""

    @pytest.fixture
    def host(self, shared_pipe, words):
        denoiser = Denoiser(shared_pipe)
        return KDiffusion(
            WebUIDenoiser(denoiser),
            encode=lambda texts: list(words.encode(texts)),
            decode=words.decode,
            denoise=lambda x, sigma, cond: denoiser(x, sigma, torch.stack(cond)),
        )

    @pytest.fixture
    def extra(self, words):
        """Return the denoiser's arguments for three images, the second of which has a prompt composed of two."""
        given = list(words.encode(WORDS))
        more = words.encode(["a ring"])[0]
        composed = [[(given[0], 1.0)], [(given[1], 1.0), (more, 0.5)], [(given[2], 1.0)]]
        return {
            "cond": composed,
            "uncond": list(words.encode([""] * 3)),
            "image_cond": torch.zeros(3, 5, 1, 1),
            "s_min_uncond": 0.0,
        }

    @pytest.mark.parametrize("name", ["euler_ancestral", "heun", "dpmpp_2m_sde"])
    def test_is_bit_identical_where_nothing_is_found(self, host, words, sigmas, extra, name):
        host.model.step = 0
        plain = draw(name, host, words, sigmas, extra=extra)
        host.model.step = 0
        with guard().attached(host):
            assert (draw(name, host, words, sigmas, extra=extra) == plain).all()

    @pytest.mark.parametrize("mode", ["separate", "replace"])
    def test_is_steered_in_the_image_in_which_something_is_found(self, host, words, sigmas, extra, mode):
        plain = draw("euler", host, words, sigmas, extra=extra)
        of = replacing() if mode == "replace" else policy()
        with guard(SEES_A_STAR_ONCE, of).attached(host) as watching:
            steered = draw("euler", host, words, sigmas, extra=extra, negative_prompts=["", "a ring", ""])
        assert same(plain, steered) == [True, False, True]
        assert watching.last.degraded == ()

    def test_steps_that_skip_the_unconditional_are_steered_too(self, host, words, sigmas, extra):
        extra = {**extra, "s_min_uncond": 100.0}
        host.model.step = 0
        plain = draw("euler", host, words, sigmas, extra=extra)
        host.model.step = 0
        with guard(SEES_A_STAR_ONCE).attached(host) as watching:
            steered = draw("euler", host, words, sigmas, extra=extra)
        assert same(plain, steered) == [True, False, True]
        assert watching.last.degraded == ()


class TestWhatIsDelivered:
    @pytest.mark.parametrize(
        ("still", "outcome"), [("block", Outcome.BLOCKED), ("blur", Outcome.BLURRED), ("monitor", Outcome.STEERED)]
    )
    def test_a_finding_at_the_end_is_withheld_blurred_or_passed(self, host, words, sigmas, still, outcome):
        of = policy(categories=[star(still_present=still)])
        with guard([SECOND], of).attached(host) as watching:
            made = draw("euler", host, words, sigmas)
        with guard([SECOND], policy(categories=[star(still_present="monitor")])).attached(host):
            steered = draw("euler", host, words, sigmas)
        assert watching.last.images[1].decision is outcome
        assert same(made, steered) == [True, outcome is Outcome.STEERED, True]
        assert (len(np.unique(made[1][:2])) == 1) is (outcome is Outcome.BLOCKED)

    def test_the_users_callback_sees_no_more_than_the_policy_allows(self, host, words, sigmas):
        seen = {}
        with guard([SECOND]).attached(host):
            draw("euler", host, words, sigmas, callback=lambda info: seen.update({info["i"]: info["denoised"]}))
        assert seen[1][1].any()
        assert not seen[3][1].any()
        assert seen[3][0].any()

    def test_the_record_tells_the_host_the_sampler_and_the_steps(self, host, words, sigmas):
        sink = MemorySink()
        with guard(audit=sink).attached(host):
            draw("dpmpp_2m", host, words, sigmas)
        (started,) = [event for event in sink.records if event["event"] == "request.started"]
        assert started["host"] == {"name": "k-diffusion", "target": "CFGDenoiser"}
        assert started["run"] == {"seed": 0, "scheduler": "sample_dpmpp_2m", "steps": FEW, "guidance_scale": SCALE}


class TestFailure:
    def test_without_an_answer_every_image_is_withheld(self, host, words, sigmas):
        with guard([{"error": "unavailable"}]).attached(host) as watching:
            made = draw("euler", host, words, sigmas)
        assert watching.last.decision is Outcome.FAILED_CLOSED
        assert len(np.unique(made[:, :2])) == 1

    def test_open_passes_what_it_could_not_look_at_and_says_so(self, host, words, sigmas):
        plain = draw("euler", host, words, sigmas)
        with guard([{"error": "unavailable"}], policy(on_failure="open")).attached(host) as watching:
            made = draw("euler", host, words, sigmas)
        assert (made == plain).all()
        assert watching.last.decision is Outcome.FAILED_OPEN

    @pytest.mark.parametrize("part", ["encode", "denoise"])
    def test_a_run_that_cannot_be_steered_goes_on_and_is_recorded(self, shared_pipe, words, sigmas, part):
        def broken(*_args, **_kwargs):
            raise RuntimeError("no such token")

        plain = draw("euler", target(shared_pipe)[0], words, sigmas)
        host = target(shared_pipe, **{part: broken})[0]
        with guard([SECOND, CLEAN], policy(queries={"final": False})).attached(host) as watching:
            draw("euler", host, words, sigmas)
        assert watching.last.degraded
        with guard([*[SECOND] * 4, CLEAN], policy(on_failure="open")).attached(host):
            assert (draw("euler", host, words, sigmas) == plain).all()

    def test_a_prediction_that_is_not_a_number_is_not_looked_at(self, shared_pipe, words, sigmas):
        host = KDiffusion(
            lambda x, sigma, **_: x * float("nan"), encode=words.encode, decode=lambda x: words.decode(x.nan_to_num())
        )
        with guard().attached(host) as watching:
            draw("euler", host, words, sigmas)
        assert len(watching.last.images[0].queries) == 1
        assert len(watching.last.degraded) >= 4

    def test_a_run_that_raises_is_abandoned(self, host, words, sigmas):
        def stop(info):
            raise KeyboardInterrupt

        sink = MemorySink()
        with guard(audit=sink).attached(host) as watching, pytest.raises(KeyboardInterrupt):
            draw("euler", host, words, sigmas, callback=stop)
        assert watching.last.decision is Outcome.FAILED_CLOSED
        assert [event["reason"] for event in sink.records if event["event"] == "request.abandoned"] == [
            "KeyboardInterrupt"
        ]

    def test_a_block_left_without_the_final_look_is_abandoned(self, host):
        with guard().attached(host) as watching, host.generation(1, [1.0, 0.0]):
            pass
        assert watching.last.decision is Outcome.FAILED_CLOSED


class TestAttaching:
    def test_detaching_leaves_it_plain(self, host, words, sigmas):
        plain = draw("euler", host, words, sigmas)
        with guard([SECOND]).attached(host):
            pass
        assert host.guard is None
        assert (draw("euler", host, words, sigmas) == plain).all()

    def test_a_with_block_puts_back_the_guard_before(self, host):
        outer = guard()
        outer.attach(host)
        with guard().attached(host) as inner:
            assert host.guard is inner
        assert host.guard is outer

    def test_with_blocks_that_end_in_the_order_they_began_guard_to_the_last(self, host):
        watching = guard()
        earlier, later = watching.attached(host), watching.attached(host)
        earlier.__enter__()
        later.__enter__()
        earlier.__exit__(None, None, None)
        assert host.guard is watching
        later.__exit__(None, None, None)
        assert host.guard is None

    def test_attaching_and_detaching_are_recorded(self, host):
        sink = MemorySink()
        with guard(audit=sink).attached(host):
            pass
        assert [event["event"] for event in sink.records[-2:]] == ["guard.attached", "guard.detached"]

    def test_a_generation_without_a_guard_is_refused(self, host):
        with pytest.raises(CannotSteer, match="no guard is attached"), host.generation(1):
            pass

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({}, "needs the user's negative as text"),
            ({"negative_prompts": [""] * 3, "extra": {"cond_scale": 1.0}}, "needs an unconditional slot in use"),
            ({"negative_prompts": [""] * 3, "extra": {"uncond": None}}, "needs an unconditional slot in use"),
        ],
    )
    def test_replace_is_refused_where_it_could_not_take_effect(self, host, words, sigmas, arguments, reason):
        with guard(of=replacing()).attached(host), pytest.raises(CannotSteer, match=reason):
            draw("euler", host, words, sigmas, **arguments)

    def test_the_model_still_gives_a_sampler_what_it_asks_for(self, host):
        with guard().attached(host), host.generation(1) as (model, going):
            assert model.inner_model is host.model.inner_model
            going.abandon("enough")


def replacing():
    return policy(guidance={"mode": "replace", "scale": None, "strength": None})
