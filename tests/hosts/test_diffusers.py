import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler, StableDiffusionPipeline

from dnp_guard import CannotSteer, Guard, Outcome, RequestRefused, hookimpl
from dnp_guard.audit import MemorySink
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.bits import same
from tests.hosts.conftest import STEPS, draw, footprint
from tests.policies import bolt, policy, star

pytestmark = pytest.mark.models

CLEAN = {"star": 0.0}


def guard(script=(CLEAN,), of=None, **arguments):
    return Guard(of or policy(), vlm=ScriptedBackend(list(script)), **arguments)


def second(**terms):
    """Return scripted answers of a look at three images, of which only the second shows the given terms."""
    return [{}, terms, {}]


SEES_A_STAR_ONCE = [[{}, {}, {}], second(star=0.9), CLEAN]


def withheld(image):
    """Return whether an image [H, W, 3] is the placeholder of a withheld one: grey with a sign in its middle."""
    return np.ptp(image[:3]) == 0 and np.ptp(image) > 0


class TestAttaching:
    def test_the_literal_line_guards_every_later_call(self, pipe):
        pipe.callback_on_step_end = watching = guard()
        draw(pipe)
        first = watching.last.request
        draw(pipe)
        assert watching.last.request != first

    def test_none_gives_the_class_back(self, pipe):
        pipe.callback_on_step_end = guard()
        assert type(pipe) is not StableDiffusionPipeline
        pipe.callback_on_step_end = None
        assert type(pipe) is StableDiffusionPipeline

    def test_the_attribute_reads_back_as_the_guard(self, pipe):
        assert pipe.callback_on_step_end is None
        pipe.callback_on_step_end = attached = guard()
        assert pipe.callback_on_step_end is attached

    def test_a_with_block_puts_back_the_guard_before(self, pipe):
        pipe.callback_on_step_end = outer = guard()
        with guard().attached(pipe) as inner:
            assert pipe.callback_on_step_end is inner
        assert pipe.callback_on_step_end is outer

    def test_with_blocks_that_end_in_the_order_they_began_guard_to_the_last_and_leave_nothing(self, pipe):
        first, other = guard(), guard()
        for one, two in ((first, first), (first, other)):
            earlier, later = one.attached(pipe), two.attached(pipe)
            earlier.__enter__()
            later.__enter__()
            earlier.__exit__(None, None, None)
            assert pipe.callback_on_step_end is two
            later.__exit__(None, None, None)
            assert pipe.callback_on_step_end is None

    def test_a_guard_that_is_assigned_inside_a_with_block_stays(self, pipe):
        with guard().attached(pipe):
            pipe.callback_on_step_end = assigned = guard()
        assert pipe.callback_on_step_end is assigned

    def test_a_plain_function_as_the_attribute_is_an_error_and_not_ignored(self, pipe):
        with pytest.raises(TypeError, match="pass an ordinary callback to the call"):
            pipe.callback_on_step_end = print

    def test_a_target_that_no_adapter_knows_is_refused(self):
        with pytest.raises(CannotSteer, match=r"no host adapter recognises builtins\.object"):
            guard().attach(object())

    def test_a_pipeline_of_an_unknown_scheduler_is_refused(self, pipe):
        class Strange(type(pipe.scheduler)):
            pass

        plain, pipe.scheduler = pipe.scheduler, Strange.from_config(pipe.scheduler.config)
        try:
            with pytest.raises(CannotSteer, match="the prediction of a Strange is not known"):
                pipe.callback_on_step_end = guard()
        finally:
            pipe.scheduler = plain

    def test_saving_a_guarded_pipeline_writes_the_plain_class(self, pipe, tmp_path):
        pipe.callback_on_step_end = guard()
        pipe.save_pretrained(tmp_path)
        assert '"_class_name": "StableDiffusionPipeline"' in (tmp_path / "model_index.json").read_text()

    def test_a_copied_pipeline_is_guarded_by_the_same_guard(self, pipe):
        pipe.callback_on_step_end = attached = guard()
        assert copy.copy(pipe).callback_on_step_end is attached

    def test_a_deep_copy_is_guarded_by_the_same_guard_on_parts_of_its_own(self, pipe):
        pipe.callback_on_step_end = attached = guard()
        copied = copy.deepcopy(pipe)
        assert copied.callback_on_step_end is attached
        assert copied.unet is not pipe.unet

    def test_a_pickled_pipeline_loads_without_the_guard_and_says_so(self, pipe):
        pipe.callback_on_step_end = guard()
        with pytest.warns(UserWarning, match="the pickled StableDiffusionPipeline is not guarded"):
            loaded = pickle.loads(pickle.dumps(pipe))  # noqa: S301 (its own)
        assert type(loaded) is StableDiffusionPipeline
        assert loaded.callback_on_step_end is None

    def test_a_callback_of_the_caller_still_runs(self, pipe):
        steps = []
        pipe.callback_on_step_end = guard()
        draw(pipe, callback_on_step_end=lambda _, step, __, kwargs: steps.append(step) or kwargs)
        assert steps == list(range(STEPS))


class TestIdle:
    def test_shadow_leaves_every_bit_and_records_what_it_would_inject(self, pipe):
        plain, sink = draw(pipe), MemorySink()
        shadow = guard([{"star": 0.9}], policy(mode="shadow"), audit=sink)
        with shadow.attached(pipe):
            assert same(plain, draw(pipe)) == [True, True, True]
        would = [record["would"] for record in sink.records if record["event"] == "query" and "would" in record]
        assert would[0] == {"decision": "steer", "negative": "star", "scale": 6}
        assert shadow.last.decision is Outcome.CLEAN

    def test_the_global_random_generator_is_left_alone(self, pipe):
        with guard(SEES_A_STAR_ONCE).attached(pipe):
            state = torch.get_rng_state()
            draw(pipe)
            assert torch.equal(torch.get_rng_state(), state)


class TestSteering:
    def test_one_injection_is_recorded_for_one_change_of_negative(self, pipe):
        sink = MemorySink()
        with guard(SEES_A_STAR_ONCE, audit=sink).attached(pipe):
            draw(pipe)
        injected = [record for record in sink.records if record["event"] == "negative.injected"]
        assert [(r["image"], r["step"], r["applied_step"]) for r in injected] == [(1, 3, 4)]
        assert injected[0]["negative"] == {"effective": True, "mode": "separate", "scale": 6, "text": "star"}

    def test_replace_equals_the_negative_prompt_from_that_step_on(self, pipe):
        prompt, steps, g = "a wish and a red circle at night", 10, 5.0
        replacing = {"mode": "replace", "scale": None, "strength": None, "hold": 9}
        of = policy(queries={"steps": [3], "of": steps, "final": False}, guidance=replacing)
        with guard([{"star": 0.9}], of).attached(pipe):
            guarded = draw(pipe, [prompt], num_inference_steps=steps, negative_prompt=["square"], output_type="latent")
        halves = [pipe.encode_prompt(text, "cpu", 1, False)[0] for text in ("star, square", prompt)]

        def switch(_, step, __, kwargs):
            return {"prompt_embeds": torch.cat(halves)} if step == 3 else kwargs

        expected = draw(
            pipe,
            [prompt],
            num_inference_steps=steps,
            guidance_scale=g,
            negative_prompt=["square"],
            output_type="latent",
            callback_on_step_end=switch,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
        torch.testing.assert_close(guarded, expected, rtol=0, atol=0)

    def test_without_guidance_the_negative_is_pushed_away_from_the_prompt_alone(self, pipe):
        plain = draw(pipe, guidance_scale=1.0)
        with guard(SEES_A_STAR_ONCE).attached(pipe):
            assert same(plain, draw(pipe, guidance_scale=1.0)) == [True, False, True]

    def test_replace_without_an_unconditional_slot_is_refused_before_the_call(self, pipe):
        of = policy(guidance={"mode": "replace", "scale": None, "strength": None})
        with guard(of=of).attached(pipe), pytest.raises(CannotSteer, match="no unconditional slot"):
            draw(pipe, guidance_scale=1.0)

    def test_several_images_a_prompt_are_judged_one_by_one(self, pipe):
        def three():
            torch.manual_seed(0)
            return pipe("a red circle", num_images_per_prompt=3, num_inference_steps=STEPS, output_type="np").images

        plain = three()
        with guard(SEES_A_STAR_ONCE).attached(pipe):
            assert same(plain, three()) == [True, False, True]

    def test_replace_is_refused_where_a_run_turns_out_to_have_no_unconditional_half(self, pipe, monkeypatch):
        monkeypatch.setattr(type(pipe), "do_classifier_free_guidance", property(lambda _: False))
        of = policy(guidance={"mode": "replace", "scale": None, "strength": None})
        with guard(of=of).attached(pipe), pytest.raises(CannotSteer, match="no unconditional slot"):
            draw(pipe)

    def test_replace_in_shadow_refuses_no_call(self, pipe):
        replacing = {"mode": "replace", "scale": None, "strength": None}
        plain = draw(pipe, guidance_scale=1.0)
        with guard([{"star": 0.9}], policy(mode="shadow", guidance=replacing)).attached(pipe):
            assert same(plain, draw(pipe, guidance_scale=1.0)) == [True, True, True]

    def test_the_sub_steps_of_a_heun_step_are_steered_alike_from_the_next_step_on(self, pipe):
        plain_scheduler, evaluated = pipe.scheduler, []
        pipe.scheduler = scheduler = HeunDiscreteScheduler.from_config(plain_scheduler.config)

        def note(_, inputs):
            if len(inputs[0]) == 1:
                evaluated.append(scheduler.step_index)

        counter = pipe.unet.conv_in.register_forward_pre_hook(note)
        try:
            with guard(SEES_A_STAR_ONCE).attached(pipe) as watching:
                draw(pipe)
        finally:
            counter.remove()
            pipe.scheduler = plain_scheduler
        (applied, _), *_ = watching.last.images[1].negatives
        assert evaluated[0] == 2 * applied

    def test_another_scheduler_is_steered_too(self, pipe):
        plain_scheduler = pipe.scheduler
        pipe.scheduler = EulerDiscreteScheduler.from_config(plain_scheduler.config)
        try:
            plain = draw(pipe)
            with guard(SEES_A_STAR_ONCE).attached(pipe):
                assert same(plain, draw(pipe)) == [True, False, True]
        finally:
            pipe.scheduler = plain_scheduler

    def test_a_similar_prediction_is_not_asked_about_again(self, pipe):
        sink = MemorySink()
        with guard(of=policy(queries={"skip_similar": 0.0}), audit=sink).attached(pipe) as watching:
            draw(pipe)
        events = [record["event"] for record in sink.records if record.get("image") == 0]
        assert events.count("query") == 2
        assert events.count("query.skipped") == 3
        assert len(watching.last.images[0].queries) == 2


class TestFinalLook:
    FOUND_AT_THE_END = [CLEAN, CLEAN, CLEAN, CLEAN, [{}, {"star": 0.9}, {}]]

    def test_still_present_blocks_with_an_image_that_says_so(self, pipe):
        plain = draw(pipe)
        with guard(self.FOUND_AT_THE_END).attached(pipe) as watching:
            images = draw(pipe)
        assert [image.decision for image in watching.last.images] == ["clean", "blocked", "clean"]
        assert same(plain, images) == [True, False, True]
        assert withheld(images[1])

    def test_still_present_blurs(self, pipe):
        of = policy(categories=[star(still_present="blur"), bolt()])
        plain = draw(pipe)
        with guard(self.FOUND_AT_THE_END, of).attached(pipe) as watching:
            images = draw(pipe)
        assert watching.last.decision is Outcome.BLURRED
        detail = [np.abs(np.diff(image, axis=1)).mean() for image in (plain[1], images[1])]
        assert detail[1] < detail[0] / 3

    def test_still_present_monitors_and_lets_the_image_pass(self, pipe):
        of = policy(categories=[star(still_present="monitor"), bolt()])
        plain = draw(pipe)
        with guard(self.FOUND_AT_THE_END, of).attached(pipe) as watching:
            assert same(plain, draw(pipe)) == [True, True, True]
        assert watching.last.decision is Outcome.MONITORED

    @pytest.mark.parametrize("kind", ["pil", "pt", "np"])
    def test_every_output_type_is_blocked(self, pipe, kind):
        with guard(self.FOUND_AT_THE_END).attached(pipe):
            blocked = np.asarray(draw(pipe, output_type=kind)[1])
        assert withheld(np.moveaxis(blocked, 0, -1) if kind == "pt" else blocked)

    def test_an_output_type_that_diffusers_does_not_know_is_refused_before_the_call(self, pipe):
        with guard(self.FOUND_AT_THE_END).attached(pipe), pytest.raises(CannotSteer, match="output_type 'numpy'"):
            draw(pipe, output_type="numpy")

    def test_blocked_latents_decode_to_grey(self, pipe):
        with guard(self.FOUND_AT_THE_END).attached(pipe):
            latents = draw(pipe, output_type="latent")
        decoded = pipe.vae.decode(latents[1:2] / pipe.vae.config.scaling_factor, return_dict=False)[0]
        assert decoded.std() < 0.1

    def test_the_safety_flag_is_set_for_what_was_withheld(self, pipe):
        with guard(self.FOUND_AT_THE_END).attached(pipe):
            output = pipe(["a red circle"] * 3, num_inference_steps=STEPS)
        assert output.nsfw_content_detected == [False, True, False]

    def test_return_dict_false_is_honoured(self, pipe):
        with guard(self.FOUND_AT_THE_END).attached(pipe):
            images, flags = pipe(["a red circle"] * 3, num_inference_steps=STEPS, return_dict=False)
        assert len(images) == 3
        assert flags == [False, True, False]


class TestFailure:
    @pytest.mark.parametrize(
        ("on_failure", "outcome"), [("closed", "failed_closed"), ("open", "failed_open"), ("last", "failed_closed")]
    )
    def test_a_backend_that_never_answers_ends_as_the_policy_says(self, pipe, on_failure, outcome):
        plain = draw(pipe)
        with guard([{"error": "timeout"}], policy(on_failure=on_failure)).attached(pipe) as watching:
            images = draw(pipe)
        assert watching.last.decision == outcome
        assert same(plain, images) == [outcome == "failed_open"] * 3

    def test_a_later_answer_clears_a_miss(self, pipe):
        with guard([{"error": "timeout"}, CLEAN]).attached(pipe) as watching:
            draw(pipe)
        assert watching.last.decision is Outcome.CLEAN
        assert watching.last.degraded == ("vlm_timeout",)

    def test_a_missed_query_is_asked_again_at_the_next_step(self, pipe):
        with guard([{"error": "timeout"}, CLEAN]).attached(pipe) as watching:
            draw(pipe)
        assert [look.step for look in watching.last.images[0].queries][:2] == [3, 5]

    def test_a_missed_query_keeps_the_negative(self, pipe):
        script = [second(star=0.9), {"error": "timeout"}]
        with guard(script, policy(on_failure="last")).attached(pipe) as watching:
            draw(pipe)
        assert watching.last.images[1].negatives[0][0] == 3
        assert watching.last.images[1].decision is Outcome.STEERED

    def test_an_encoder_that_fails_does_not_raise_into_the_generation(self, pipe, monkeypatch):
        watching = guard([second(bolt=0.9), CLEAN])
        with watching.attached(pipe):
            plain, broken = pipe.text_encoder.forward, []

            def fails(*args, **kwargs):
                if len(broken) < 3:  # the prompt, the empty prompt, and the words of the proof
                    broken.append(args)
                    return plain(*args, **kwargs)
                raise RuntimeError("encoder")

            monkeypatch.setattr(pipe.text_encoder, "forward", fails)
            draw(pipe)
            monkeypatch.undo()
        assert broken
        assert watching.last.degraded == ("guard_error",)

    def test_an_output_that_cannot_be_shown_is_withheld_without_being_decoded(self, pipe, monkeypatch):
        watching = guard()
        with watching.attached(pipe), monkeypatch.context() as patch:
            patch.setattr("dnp_guard.hosts.diffusers.showing.output.Output.pictures", lambda _: 1 / 0)
            images = draw(pipe)
        assert watching.last.decision is Outcome.FAILED_CLOSED
        assert all(map(withheld, images))

    def test_an_exception_of_the_pipeline_goes_through_and_leaves_nothing_behind(self, pipe):
        def interrupts(*_):
            raise KeyboardInterrupt

        sink = MemorySink()
        with guard(audit=sink).attached(pipe), pytest.raises(KeyboardInterrupt):
            draw(pipe, callback_on_step_end=interrupts)
        assert sink.records[-2]["event"] == "request.abandoned"

    def test_an_interrupt_during_the_final_look_is_recorded_as_abandoned(self, pipe):
        class Interrupted:
            looks = 0

            def ask(self, images, questions):
                self.looks += 1
                if self.looks == 5:
                    raise KeyboardInterrupt
                return [[0.0] * len(questions) for _ in images]

        sink = MemorySink()
        with Guard(policy(), vlm=Interrupted(), audit=sink).attached(pipe), pytest.raises(KeyboardInterrupt):
            draw(pipe)
        assert sink.records[-2]["event"] == "request.abandoned"

    def test_too_many_questions_are_refused_before_the_generation(self, pipe):
        watching = guard(of=policy(queries={"max_questions": 10}))
        with watching.attached(pipe), pytest.raises(RequestRefused, match="may need 45 questions"):
            draw(pipe)

    def test_a_record_that_must_be_written_and_cannot_be_withholds_the_image(self, pipe):
        class Full:
            def write(self, event):
                raise OSError("disk full")

            def close(self):
                pass

        with guard(of=policy(audit={"required": True}), audit=Full()).attached(pipe) as watching:
            draw(pipe)
        assert watching.last.decision is Outcome.FAILED_CLOSED
        assert "audit_required" in watching.last.degraded


class TestCallArgument:
    def test_it_steers_the_image_concerned(self, pipe):
        plain = draw(pipe)
        steered = draw(pipe, callback_on_step_end=guard(SEES_A_STAR_ONCE))
        assert same(plain, steered) == [True, False, True]

    def test_it_leaves_every_bit_when_it_finds_nothing(self, pipe):
        plain = draw(pipe)
        assert same(plain, draw(pipe, callback_on_step_end=guard())) == [True, True, True]

    def test_it_blocks_by_latents_that_decode_to_grey(self, pipe):
        watching = guard(TestFinalLook.FOUND_AT_THE_END)
        images = draw(pipe, callback_on_step_end=watching)
        assert watching.last.images[1].decision is Outcome.BLOCKED
        assert images[1].std() < 0.1

    def test_remains_of_a_call_that_raised_are_removed_by_the_next_call(self, pipe):
        watching, before = guard(), footprint(pipe)

        def raises(*arguments):
            watching(*arguments)
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            draw(pipe, callback_on_step_end=raises)
        assert footprint(pipe) != before
        draw(pipe, callback_on_step_end=watching)
        assert footprint(pipe) == before

    def test_remains_of_a_call_that_raised_do_not_steer_the_next_call(self, pipe):
        plain, watching = draw(pipe), guard([{"star": 0.9}])

        def raises_late(*arguments):
            watching(*arguments)
            if arguments[1] == 4:
                raise RuntimeError("stop")
            return {}

        with pytest.raises(RuntimeError, match="stop"):
            draw(pipe, callback_on_step_end=raises_late)
        assert same(plain, draw(pipe)) == [True, True, True]

    def test_remains_of_a_call_that_raised_are_inactive_under_another_scheduler(self, pipe):
        def raises_late(*arguments):
            watching(*arguments)
            if arguments[1] == 4:
                raise RuntimeError("stop")
            return {}

        own, other = pipe.scheduler, EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        try:
            pipe.scheduler = other
            plain, watching = draw(pipe), guard([{"star": 0.9}])
            pipe.scheduler = own
            with pytest.raises(RuntimeError, match="stop"):
                draw(pipe, callback_on_step_end=raises_late)
            pipe.scheduler = other
            assert same(plain, draw(pipe)) == [True, True, True]
            draw(pipe, callback_on_step_end=guard())
            assert not {"step", "set_timesteps"} & own.__dict__.keys()
        finally:
            pipe.scheduler = own

    def test_it_is_refused_where_it_is_not_shown_the_latents(self, pipe):
        before = footprint(pipe)
        with pytest.raises(CannotSteer, match="not shown the latents"):
            draw(pipe, callback_on_step_end=guard(), callback_on_step_end_tensor_inputs=["prompt_embeds"])
        assert footprint(pipe) == before

    def test_with_the_same_guard_attached_it_counts_once(self, pipe):
        pipe.callback_on_step_end = watching = guard()
        draw(pipe, callback_on_step_end=watching)
        assert watching.last.images[0].queries[0].step == 2


class TestOneGuardForSeveralThreads:
    def test_each_thread_sees_its_own_report(self, pipe):
        shared, reports = guard([{"star": 0.0}]), {}

        def work(name, size):
            own = copy.deepcopy(pipe)
            with shared.attached(own):
                own(["a red circle"] * size, num_inference_steps=STEPS, output_type="np")
            reports[name] = shared.last

        threads = [threading.Thread(target=work, args=(name, name + 1)) for name in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(reports[name].images) for name in range(2)] == [1, 2]
        assert shared.last is None


def test_a_plugin_tightens_the_final_decision(pipe):
    class Strict:
        @hookimpl
        def dnp_guard_after_decision(self, step, image):
            return "block" if step is None and image == 0 else None

    with guard(plugins=[Strict()]).attached(pipe) as watching:
        draw(pipe)
    assert [image.decision for image in watching.last.images] == ["blocked", "clean", "clean"]
