"""The guard captures the conditioning that a pipeline gives its denoiser, and proves that it does so correctly."""

import copy
import threading

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, StableDiffusionPipeline

from dnp_guard import CannotSteer, Guard
from dnp_guard.hosts.diffusers.asking.recording import Recording
from dnp_guard.hosts.diffusers.checks import check_caches
from dnp_guard.hosts.diffusers.guarded_call import read_arguments
from dnp_guard.hosts.diffusers.prediction import predict
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.bits import same
from tests.hosts.tiny import draw, everything, tiny
from tests.hosts.tiny.looks import SeesAStarOnce
from tests.policies import policy

pytestmark = pytest.mark.models


def guard(vlm=None):
    return Guard(policy(guidance={"hold": 9}), vlm=vlm or SeesAStarOnce())


def conditioning(pipe, words="star", **arguments):
    """Return the conditioning that the guard captures for some words, to give it to the denoiser."""
    from dnp_guard.hosts.diffusers import beginning

    captured = []

    class Keeps(beginning.Proof):
        def __init__(self, *args):
            super().__init__(*args)
            captured.append(self.captured(words).of(0))

    plain, beginning.Proof = beginning.Proof, Keeps
    try:
        with guard(ScriptedBackend([{}])).attached(pipe):
            draw(pipe, num_inference_steps=2, **arguments)
    finally:
        beginning.Proof = plain
    return captured[0]


class Painter(DiffusionPipeline):
    """A pipeline class that the guard's tables do not contain, whose call has unusual names of arguments."""

    def __init__(self, scheduler, painter, vae, tokenizer, reader, *, deaf=False):
        super().__init__()
        self.register_modules(scheduler=scheduler, painter=painter, vae=vae, tokenizer=tokenizer, reader=reader)
        self.deaf = deaf
        self.returned = 0  # outputs that the call itself received

    def read(self, texts):
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.reader(ids)[0]

    def evaluate(self, x, t, words):
        output = self.painter(torch.cat([x, x]), t, words)[0]
        self.returned += 1
        return output.chunk(2)

    @torch.no_grad()
    def __call__(self, text, avoid="", *, rounds=8, pull=5.0, generator=None):
        words = torch.cat([self.read(text), self.read([avoid] * len(text))])
        words = torch.zeros_like(words) if self.deaf else words
        self.scheduler.set_timesteps(rounds)
        x = torch.stack([torch.randn(4, 16, 16, generator=source) for source in generator])
        for t in self.scheduler.timesteps:
            toward, away = self.evaluate(x, t, words)
            x = self.scheduler.step(away + pull * (toward - away), t, x)[0]
        pictures = self.vae.decode(x / self.vae.config.scaling_factor)[0]
        return ((pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(),)


def painter(**more):
    parts = tiny("StableDiffusionPipeline").components
    scheduler = DDIMScheduler.from_config(parts["scheduler"].config)
    names = {"painter": "unet", "vae": "vae", "tokenizer": "tokenizer", "reader": "text_encoder"}
    made = Painter(scheduler, **{own: parts[name] for own, name in names.items()}, **more)
    made.set_progress_bar_config(disable=True)
    return made


def paint(pipe):
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    return pipe(["a red circle", "a blue square", "a green cross"], generator=generators)[0]


def test_a_pipeline_that_no_table_knows_is_steered():
    pipe = painter()
    plain, before = paint(pipe), vars(pipe).copy()
    with guard().attached(pipe):
        assert same(plain, paint(pipe)) == [True, False, True]
    assert {**vars(pipe), "returned": 8} == before


def test_a_prompt_that_the_denoiser_is_not_given_is_refused_before_its_first_evaluation_returns():
    pipe = painter(deaf=True)
    with guard().attached(pipe), pytest.raises(CannotSteer, match="no words of this call reach its denoiser"):
        paint(pipe)
    assert pipe.returned == 0


def test_branches_that_are_evaluated_one_by_one_are_refused_before_the_first_returns():
    class Apart(Painter):
        def evaluate(self, x, t, words):
            branches = []
            for chunk in words.chunk(2):
                branches.append(self.painter(x, t, chunk)[0])
                self.returned += 1
            return branches

    pipe = painter(deaf=True)
    pipe.__class__ = Apart
    with guard().attached(pipe), pytest.raises(CannotSteer, match="no words of this call reach its denoiser"):
        paint(pipe)
    assert pipe.returned == 0
    pipe.deaf = False
    plain = paint(pipe)
    with guard().attached(pipe):
        assert same(plain, paint(pipe)) == [True, False, True]


def test_a_pipeline_that_gives_its_denoiser_something_else_each_time_is_refused():
    class Fickle(Painter):
        calls = 0

        def read(self, texts):
            Fickle.calls += 1
            return super().read(texts) + Fickle.calls

    pipe = painter()
    pipe.__class__ = Fickle
    with guard().attached(pipe), pytest.raises(CannotSteer, match="gives its painter another"):
        paint(pipe)


def test_a_prompt_is_never_encoded_again_for_a_look():
    pipe, texts = tiny("StableDiffusionPipeline"), []
    counter = pipe.text_encoder.register_forward_pre_hook(lambda _, args: texts.append(args[0]))
    try:
        with guard(ScriptedBackend([{}])).attached(pipe):
            draw(pipe)
    finally:
        counter.remove()
    assert len(texts) == 3  # the prompts, the empty prompts, and the words of the proof


def test_the_denoiser_is_not_evaluated_for_a_proof():
    pipe, rows = tiny("StableDiffusionPipeline"), []
    counter = pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        with guard(ScriptedBackend([{}])).attached(pipe):
            draw(pipe)
    finally:
        counter.remove()
    assert rows == [6] * 8


def test_a_copy_draws_the_callers_noise_and_leaves_its_generators_alone():
    pipe = tiny("StableDiffusionPipeline")
    generator = torch.Generator().manual_seed(7)
    given, accepted = read_arguments(pipe, type(pipe).__call__, ("a circle",), {"generator": generator})
    recording = Recording(pipe, type(pipe).__call__, given, accepted)
    before = generator.get_state()
    drawn = [recording.run({"num_inference_steps": 1, "output_type": "np"}, {}).images for _ in range(2)]
    assert np.array_equal(*drawn)
    assert torch.equal(generator.get_state(), before)


def test_a_callback_of_the_caller_is_called_once_a_step():
    pipe, steps = tiny("StableDiffusionPipeline"), []
    with guard().attached(pipe):
        draw(pipe, callback_on_step_end=lambda _, step, __, tensors: steps.append(step) or tensors)
    assert steps == list(range(8))


def test_a_negative_is_given_the_instructions_of_a_negative_and_not_of_a_prompt():
    pipe = tiny("SanaPipeline")
    given = conditioning(pipe, complex_human_instruction=["a green cross a green cross"])
    plain = conditioning(pipe, complex_human_instruction=None)
    for path, value in given.items():
        torch.testing.assert_close(value, plain[path])


def test_a_negative_skips_the_layers_that_the_call_skips():
    pipe = tiny("StableDiffusionXLPipeline")
    given = conditioning(pipe, clip_skip=1)
    own, *_ = pipe.encode_prompt("star", device="cpu", do_classifier_free_guidance=False, clip_skip=1)
    _, negative, *_ = pipe.encode_prompt("a", device="cpu", negative_prompt="star", clip_skip=1)
    torch.testing.assert_close(given["encoder_hidden_states",], negative)
    assert not torch.equal(own, negative)  # diffusers does not skip them for a negative


def test_four_threads_share_a_denoiser():
    pipe, raised, changed = tiny("StableDiffusionPipeline"), [], []

    def own():  # tokenizers cannot be shared by threads
        parts = {name: copy.deepcopy(getattr(pipe, name)) for name in ("scheduler", "tokenizer")}
        made = StableDiffusionPipeline(**{**pipe.components, **parts}, requires_safety_checker=False)
        made.set_progress_bar_config(disable=True)
        return made

    pipes = [own() for _ in range(4)]
    plain = draw(pipe, num_inference_steps=4)
    of = policy(queries={"steps": [0], "of": 4, "final": False}, guidance={"hold": 9})

    def work(made):
        try:
            for _ in range(25):
                with Guard(of, vlm=ScriptedBackend([[{}, {"star": 0.9}, {}]])).attached(made):
                    changed.append(same(plain, draw_alone(made)))
        except Exception as error:  # noqa: BLE001 (none may be raised)
            raised.append(error)

    threads = [threading.Thread(target=work, args=(made,)) for made in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    assert changed == [[True, False, True]] * 100


def draw_alone(pipe):
    """Generate three images as :func:`draw` does, but without the global random generator, which threads share."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    prompts = ["a red circle", "a blue square", "a green cross"]
    sizes = {"height": 32, "width": 32, "num_inference_steps": 4, "guidance_scale": 5.0}
    return pipe(prompts, generator=generators, output_type="np", **sizes)[0]


def test_an_unguarded_pipeline_that_runs_inside_a_callback_is_not_steered():
    pipe, inner = tiny("StableDiffusionPipeline"), []
    other = StableDiffusionPipeline(
        **{**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    plain = draw_alone(other)

    def runs(_pipe, step, _timestep, tensors):
        if step == 6:
            inner.append(draw_alone(other))
        return tensors

    with guard().attached(pipe):
        draw(pipe, callback_on_step_end=runs)
    assert same(plain, inner[0]) == [True, True, True]


def test_the_parts_that_a_callback_sees_are_the_pipelines_own():
    pipe, seen = tiny("StableDiffusionPipeline"), []
    unet = pipe.unet
    with guard().attached(pipe):
        draw(pipe, callback_on_step_end=lambda own, *_: seen.append(own.unet is unet) or {})
    assert seen == [True] * 8


def test_a_denoiser_that_is_compiled_as_a_whole_is_steered():
    pipe = copy.deepcopy(tiny("StableDiffusionPipeline"))
    torch._dynamo.reset()
    pipe.unet.compile(fullgraph=True, backend="eager")
    plain = draw(pipe)
    with guard().attached(pipe):
        assert same(plain, draw(pipe)) == [True, False, True]
    torch._dynamo.reset()


def test_a_callable_that_is_no_module_denoises():
    pipe = copy.deepcopy(tiny("StableDiffusionPipeline"))
    unet = pipe.unet

    class Engine:
        config, dtype, add_embedding = unet.config, unet.dtype, None

        def __call__(self, sample, timestep, encoder_hidden_states, **kwargs):
            return unet(sample, timestep, encoder_hidden_states, **kwargs)

    pipe.unet = Engine()
    plain = draw(pipe)
    with guard().attached(pipe):
        assert same(plain, draw(pipe)) == [True, False, True]


@pytest.mark.parametrize("made", [lambda pipe: type(pipe)(**pipe.components), lambda pipe: pipe.from_pipe(pipe)])
def test_a_pipeline_made_by_the_class_of_a_guarded_one_is_guarded_once(made):
    pipe = tiny("StableDiffusionPipeline")
    with guard(ScriptedBackend([{}])).attached(pipe) as watching:
        with pytest.warns(UserWarning, match="not guarded itself"):
            other = made(pipe)
        assert type(other) is StableDiffusionPipeline
        other.set_progress_bar_config(disable=True)
        other.callback_on_step_end = watching
        draw_alone(other)
    assert len(watching.last.images[0].queries) == 4


@pytest.mark.parametrize("name", ["FluxKontextPipeline", "PixArtSigmaPipeline"])
def test_a_mask_counts_the_latents_alone(name):
    pipe = tiny(name)
    plain = draw(pipe, output_type="latent")
    of = policy(queries={"steps": [6], "of": 8, "final": False}, guidance={"hold": 9, "mask": 0.25})
    with Guard(of, vlm=ScriptedBackend([[{}, {"star": 0.9}, {}]])).attached(pipe):
        masked = draw(pipe, output_type="latent")
    moved = (plain[1] != masked[1]).any(-1 if masked.ndim == 3 else 0).float().mean()
    assert moved.item() == pytest.approx(0.25, abs=0.02)


def test_inverted_sigmas_are_predicted_the_other_way_round():
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(8)
    clean, noise = torch.randn(2, 1, 4, 8, 8).unbind()
    for index, t in enumerate(scheduler.timesteps[:3]):
        level = scheduler.sigmas[index]
        x = level * clean + (1 - level) * noise
        prediction, _ = predict(scheduler, clean - noise, t, x)
        torch.testing.assert_close(prediction, clean)
        scheduler.step(clean - noise, t, x)


def test_a_prompt_that_is_no_text_is_refused_by_the_pipeline_itself():
    pipe = tiny("StableDiffusionPipeline")
    with guard().attached(pipe), pytest.raises(ValueError, match="`prompt` has to be of type"):
        pipe(123, num_inference_steps=1)


CACHES = {
    "FirstBlockCache": lambda _: diffusers.FirstBlockCacheConfig(threshold=0.05),
    "MagCache": lambda _: diffusers.MagCacheConfig(num_inference_steps=8, mag_ratios=torch.linspace(1, 0.9, 8)),
    "TaylorSeer": lambda _: diffusers.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=2),
}


@pytest.mark.parametrize("cache", CACHES)
def test_a_cached_denoiser_is_steered_and_the_others_keep_every_bit(cache):
    pipe = copy.deepcopy(tiny("FluxPipeline"))
    pipe.transformer.enable_cache(CACHES[cache](pipe))
    plain = draw(pipe)
    with guard().attached(pipe):
        assert same(plain, draw(pipe)) == [True, False, True]


def test_sea_cache_is_steered_and_the_others_keep_every_bit():
    pipe = copy.deepcopy(tiny("WanPipeline"))
    pipe.transformer.enable_cache(diffusers.SeaCacheConfig(threshold=10.0, retention_steps=4))
    plain = draw(pipe)
    with guard().attached(pipe):
        assert same(plain, draw(pipe)) == [True, False, True]


KEPT_TOGETHER = {
    "FasterCache": lambda pipe: diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=lambda: pipe.current_timestep,
        tensor_format="BCHW",
        is_guidance_distilled=True,
    ),
    "PyramidAttentionBroadcast": lambda pipe: diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: pipe.current_timestep
    ),
}


@pytest.mark.parametrize("cache", KEPT_TOGETHER)
def test_a_cache_that_cannot_tell_evaluations_apart_is_refused(cache):
    pipe = copy.deepcopy(tiny("FluxPipeline"))
    pipe.transformer.enable_cache(KEPT_TOGETHER[cache](pipe))
    with pytest.raises(CannotSteer, match="cache"):
        check_caches(pipe.transformer)


def test_a_cache_of_the_words_projections_is_refused():
    pipe = everything.subject("NucleusMoEImagePipeline").pipe
    pipe.transformer.enable_cache(diffusers.TextKVCacheConfig())
    with pytest.raises(CannotSteer, match="text_kv_cache"):
        check_caches(pipe.transformer)


def test_a_call_under_such_a_cache_takes_no_step():
    pipe, steps = copy.deepcopy(tiny("FluxPipeline")), []
    pipe.transformer.enable_cache(KEPT_TOGETHER["PyramidAttentionBroadcast"](pipe))
    with guard().attached(pipe), pytest.raises(CannotSteer, match="cache"):
        draw(pipe, callback_on_step_end=lambda *_: steps.append(1))
    assert not steps
