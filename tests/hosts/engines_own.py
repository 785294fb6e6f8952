"""Run vLLM-Omni's own pipelines, guarded and unguarded, as far as they run without a GPU; part of ``make engines``.

The pipeline classes and their guidance mixin are real, from a batch of requests to the decoded image. Their transformer
and autoencoder, which need vLLM's layers, are replaced by those of diffusers with the same names, and their constructor
is not run.
"""

import importlib
import multiprocessing
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import EulerDiscreteScheduler

from dnp_guard import CannotSteer, Guard, Outcome
from dnp_guard.hosts.engines import vllm_omni_pipeline
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts import engines_stubs
from tests.hosts.engines_real import digest, show
from tests.hosts.tiny import flux, stable_diffusion
from tests.policies import policy, star

SEES = {"star": 0.99}
AGAIN = {"queries": {"steps": [0.5]}, "categories": [star(still_present="retry")]}


class Called(torch.nn.Module):
    """A denoiser of diffusers behind the interface of the engine's denoiser.

    Args:
        denoiser: a denoiser of diffusers.
        names: maps the engine's names of arguments to those of diffusers; an empty name drops the argument.
    """

    def __init__(self, denoiser, **names):
        super().__init__()
        self.denoiser, self.names = denoiser, names
        self.in_channels = denoiser.config.in_channels
        self.guidance_embeds = denoiser.config.get("guidance_embeds", False)

    def forward(self, **given):
        named = {self.names.get(name, name): value for name, value in given.items()}
        return self.denoiser(**{name: value for name, value in named.items() if name})


def sdxl():
    made = stable_diffusion.sdxl()
    return {**made, "unet": Called(made["unet"], hidden_states="sample"), "scheduler": EulerDiscreteScheduler()}


def qwen():
    made = flux.qwen()
    return {**made, "transformer": Called(made["transformer"], txt_seq_lens="")}


FAMILIES = {
    "StableDiffusion3Pipeline": ("sd3.pipeline_sd3", stable_diffusion.sd3, {}),
    "StableDiffusionXLPipeline": ("sdxl.pipeline_sdxl", sdxl, {}),
    "FluxPipeline": ("flux.pipeline_flux", flux.flux, {}),
    "QwenImagePipeline": (
        "qwen_image.pipeline_qwen_image",
        qwen,
        {"prompt_template_encode": "{}", "prompt_template_encode_start_idx": 0, "tokenizer_max_length": 1024},
    ),
    "OvisImagePipeline": (
        "ovis_image.pipeline_ovis_image",
        flux.ovis,
        {"system_prompt": "", "user_prompt_begin_id": 0, "tokenizer_max_length": 16},
    ),
}
"""Pipeline classes of the engine, mapped to their module, a function that makes their parts, and further attributes."""
TOGETHER = ("StableDiffusion3Pipeline", "QwenImagePipeline", "FluxPipeline")
"""Classes that draw several requests in one batch; they are also run in half precision."""


def config(**more):
    """Return the engine's configuration of a pipeline, with a single process and no cache."""
    parallel = SimpleNamespace(data_parallel_size=1, pipeline_parallel_size=1)
    plain = {"cache_backend": "none", "step_execution": False, "output_type": "pil"}
    return SimpleNamespace(**{**plain, "parallel_config": parallel, **more})


def own(name, dtype=torch.float32, **more):
    """Build a tiny pipeline of the engine's own class, without running its constructor."""
    module, parts, attributes = FAMILIES[name]
    kind = getattr(importlib.import_module(f"vllm_omni.diffusion.models.{module}"), name)
    torch.manual_seed(0)
    made = object.__new__(kind)
    torch.nn.Module.__init__(made)
    for part, value in parts().items():
        setattr(made, part, value.eval().to(dtype) if isinstance(value, torch.nn.Module) else value)
    levels = getattr(made.vae.config, "block_out_channels", None) or made.vae.config.dim_mult
    plain = {"device": torch.device("cpu"), "_execution_device": torch.device("cpu"), "default_sample_size": 16}
    plain |= {"vae_scale_factor": 2 ** (len(levels) - 1), "tokenizer_max_length": 24, "patch_size": 2}
    plain |= {"output_type": "pil", "od_config": config(dtype=dtype, **more), "_progress_bar_config": {"disable": True}}
    for attribute, value in {**plain, **attributes}.items():
        setattr(made, attribute, value)
    return made


def batch(*prompts, images=1, **more):
    """Build a batch of the engine: one request per prompt, with the prompt's index as its seed."""
    from vllm_omni.diffusion.request import OmniDiffusionRequest
    from vllm_omni.diffusion.worker.request_batch import DiffusionRequestBatch
    from vllm_omni.inputs.data import OmniDiffusionSamplingParams

    requests = []
    for seed, prompt in enumerate(prompts):
        size = {"height": 32, "width": 32, "num_inference_steps": 4, "num_outputs_per_prompt": images}
        guided = {"guidance_scale": 5.0, "true_cfg_scale": 5.0}
        sampling = OmniDiffusionSamplingParams(**{**size, **guided, "seed": seed, **more})
        sampling.generator = torch.Generator().manual_seed(seed)
        requests.append(OmniDiffusionRequest(prompt=prompt, sampling_params=sampling, request_id=f"request-{seed}"))
    return DiffusionRequestBatch(requests=requests)


PROMPT = {"prompt": "a red circle", "negative_prompt": "a blue square"}


def rows(pipeline, asked=None):
    """Run a pipeline on a batch, by default one request, and return the hash of every request's images."""
    with torch.inference_mode():
        outputs = vllm_omni_pipeline.outputs(pipeline.forward(asked or batch(PROMPT)))
    return [digest(output.output.float().numpy()) for output in outputs]


def drawn(pipeline):
    """Run a pipeline on one request, and return the hash of its image."""
    (row,) = rows(pipeline)
    return row


def guarded(name, looks, made=None, dtype=torch.float32):
    """Return a guarded pipeline and its guard.

    Args:
        name: class of the pipeline.
        looks: answers of the scripted backend, look by look.
        made: the policy; a small one by default.
        dtype: precision of the weights.
    """
    guard = Guard(made or policy(), vlm=ScriptedBackend(looks))
    pipeline = own(name, dtype)
    vllm_omni_pipeline.attach(pipeline, guard)
    return pipeline, guard


def compared(name, dtype=torch.float32):
    """Return whether the guard does its work on a pipeline.

    It must change no image if nothing is found, steer if a star is found, and draw an image again after a failed final
    look.
    """
    unguarded = drawn(own(name, dtype))
    idle = drawn(guarded(name, [{}], dtype=dtype)[0])
    pipeline, guard = guarded(name, [SEES, {}], dtype=dtype)
    seen, steered, degraded = drawn(pipeline), guard.last.decision, guard.last.degraded
    pipeline, guard = guarded(name, [{}, SEES, {}], policy(**AGAIN), dtype)
    again, image = drawn(pipeline), guard.last.images[0]
    show(f"{name}, {str(dtype)[6:]}", "")
    show("unguarded", unguarded)
    show("guarded, nothing seen", idle)
    show("guarded, a star seen", f"{seen} ({steered})")
    show("drawn again", f"{again} ({image.decision}, {image.attempts} attempts)")
    return idle == unguarded != seen and steered == Outcome.STEERED and image.attempts == 2 and not degraded


def apart(name):
    """Return whether the guard steers one of two requests in a batch, and leaves the other's image as it was.

    Their prompts have different lengths.
    """
    other = {"prompt": "a blue square a green cross", "negative_prompt": "a"}
    plain = rows(own(name), batch(PROMPT, other))
    pipeline, guard = guarded(name, [[{}, SEES], {}])
    made = rows(pipeline, batch(PROMPT, other))
    show(f"{name}, two requests", f"{plain} -> {made}")
    return made[0] == plain[0] and made[1] != plain[1] and not guard.last.degraded


def refused():
    """Return whether the guard refuses all settings of the engine that would bypass it, such as caches."""
    refusals = []
    parallel = SimpleNamespace(data_parallel_size=2, pipeline_parallel_size=1)
    settings = {
        "TeaCache": {"cache_backend": "tea_cache"},
        "step-wise execution": {"step_execution": True},
        "data parallelism": {"parallel_config": parallel},
    }
    for what, more in settings.items():
        try:
            vllm_omni_pipeline.attach(
                own("StableDiffusion3Pipeline", **more), Guard(policy(), vlm=ScriptedBackend([{}]))
            )
            refusals.append("")
        except CannotSteer as error:
            refusals.append(error.message)
        show(f"refused: {what}", refusals[-1] or "NOT REFUSED")
    return all(refusals)


def grouped(rank, world, file):
    """Create the engine's process group for splitting guidance: one rank per branch.

    Args:
        rank: number of this process.
        world: number of processes.
        file: path of a file through which the processes meet.
    """
    from vllm_omni.diffusion.distributed import parallel_state
    from vllm_omni.diffusion.distributed.group_coordinator import GroupCoordinator

    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=world)
    parallel_state._CFG = GroupCoordinator([list(range(world))], rank, "gloo")  # noqa: SLF001 (the engine's)


def follow(rank, file, answers):
    """Draw an image in one of two processes, and put the results into a queue.

    The results are the rank, the hashes of the latents that it decodes, the hash of its image or None, and whether its
    guard has reported on a generation.
    """
    engines_stubs.install()
    grouped(rank, 2, file)
    decoded = []
    backend = ScriptedBackend([{}, SEES, {}])
    pipeline = own("StableDiffusion3Pipeline")
    decode = pipeline.vae.decode
    pipeline.vae.decode = lambda latents, **more: decoded.append(latents.numpy()) or decode(latents, **more)
    with Guard(policy(**AGAIN), vlm=backend) as guard:
        vllm_omni_pipeline.attach(pipeline, guard)
        with torch.inference_mode():
            (output,) = pipeline.forward(batch(PROMPT))
        made = None if output.output is None else digest(output.output.numpy())
        answers.put((rank, [digest(latents) for latents in decoded], made, guard.last is not None))


def fail(rank, file, answers):
    """Draw two images in one of two processes, of which rank 0 cannot decode any; put the errors into a queue."""
    engines_stubs.install()
    grouped(rank, 2, file)
    pipeline, _ = guarded("StableDiffusion3Pipeline", [{}], policy(queries={"steps": []}))
    if rank == 0:
        pipeline.vae.decode = None
    errors = []
    for _ in range(2):
        try:
            drawn(pipeline)
        except CannotSteer as error:
            errors.append(error.message)
    answers.put((rank, errors))


def two_ranks(target):
    """Run a function in two processes, and return the values that they put into the queue, sorted by rank."""
    spawning = multiprocessing.get_context("spawn")
    answers = spawning.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [spawning.Process(target=target, args=(rank, Path(folder) / "group", answers)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        passed = sorted(answers.get(timeout=300) for _ in ranks)
        for rank in ranks:
            rank.join()
    return passed


def out_of_step():
    """Return whether an error in one process fails the request in both, and the next request as well."""
    errors = [error for _, passed in two_ranks(fail) for error in passed]
    show("two ranks, an error in one", errors)
    return [error.startswith("the ranks are out of step") for error in errors] == [True] * 4


def in_two_ranks(alone):
    """Return whether two processes that split guidance decode the same latents and draw the same image as one process.

    Args:
        alone: hash of the image that a single process draws.
    """
    (_, first, made, looked), (_, second, other, followed) = two_ranks(follow)
    show("two ranks, one image drawn again", made)
    show("latents that both decode", f"{len(first)}, {'the same' if first == second else 'DIFFERENT'}")
    return first == second and made == alone and other is None and looked and not followed


def main():
    """Run all checks and print their results; return 1 if a check failed."""
    engines_stubs.install()
    with tempfile.TemporaryDirectory() as folder:
        grouped(0, 1, Path(folder) / "group")
    well = [compared(name) for name in FAMILIES] + [compared(name, torch.bfloat16) for name in TOGETHER]
    well += [apart(name) for name in TOGETHER]
    pipeline, _ = guarded("StableDiffusion3Pipeline", [{}, SEES, {}], policy(**AGAIN))
    return 0 if all([*well, in_two_ranks(drawn(pipeline)), out_of_step(), refused()]) else 1


if __name__ == "__main__":
    sys.exit(main())
