"""Hide the differences between AUTOMATIC1111, Forge and reForge, which are told apart by abilities and not by names.

AUTOMATIC1111 passes a doubled batch (conditional and unconditional rows) to the denoiser, and its callback gets both
halves of the output. Forge and reForge pass the batch once and keep their model in ``forge_objects``; Forge passes no
unconditional at a guidance scale of 1. All of them call ``Sampler.callback_state`` once per sampling step, however
many denoiser calls the step takes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from modules import devices, prompt_parser, sd_samplers_common, shared

from . import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_OF_RNG = ("shape", "seeds", "subseeds", "subseed_strength", "seed_resize_from_h", "seed_resize_from_w")
"""Attributes from which the host's random number generator of a batch can be built anew."""


class Interrupted(sd_samplers_common.InterruptedException):
    """Raised in a callback to end the job; the host swallows all other exceptions of callbacks."""


@dataclass(frozen=True)
class Call:
    """One call of the denoiser, with one row per image.

    Attributes:
        denoiser: the host's denoiser with classifier-free guidance.
        x: noisy latents [B, C, H, W].
        sigma: noise level, or timestep for samplers that count in timesteps, [B].
        image: the conditioning image [B, …], or None.
        uncond: conditioning of the negative prompts, [B, tokens, width] or a dictionary of such tensors; None if the
            guidance scale is 1.
    """

    denoiser: Any
    x: torch.Tensor
    sigma: torch.Tensor
    image: Any
    uncond: Any

    @property
    def images(self) -> int:
        """The number of images in the batch."""
        return len(self.x)


def call(params: Any) -> Call:
    """Return the denoiser call that a callback's parameters describe, reduced to one row per image."""
    rows = len(params.x) if params.text_uncond is None else params.text_uncond.shape[0]
    image = params.image_cond
    if isinstance(image, torch.Tensor) and len(image) >= rows:
        image = image[-rows:]
    return Call(params.denoiser, params.x[-rows:], params.sigma[-rows:], image, params.text_uncond)


def steps(sampler: Any) -> int | None:
    """Return the number of steps of this sampling pass; None for a sampler that chooses its own noise levels.

    These are DPM adaptive, which decides on their number while it runs, and DPM fast, whose steps take up to three
    denoiser calls.
    """
    accepts = inspect.signature(sampler.func).parameters if callable(sampler.func) else {}
    total = sampler.model_wrap_cfg.steps
    if "timesteps" in accepts:
        return max(total - 1, 1)  # such a sampler goes from timestep to timestep, and counts one more than its steps
    return None if "sigma_min" in accepts and "sigmas" not in accepts else total


def progress(denoiser: Any, sigma: float) -> float:
    """Return the executed share of a run, 0 to 1, by its current noise level; for samplers whose steps are unknown."""
    inner = denoiser.inner_model
    t = float(inner.sigma_to_t(torch.tensor([sigma], device=inner.sigmas.device)))
    return min(max(1 - t / (len(inner.sigmas) - 1), 0.0), 1.0)


def counts(denoiser: Any) -> bool:
    """Return whether the unconditional prediction affects the images of this sampling pass.

    At a guidance scale of 1 it does so only with DDIM CFG++ (Chung et al., arXiv 2406.08070), which takes the noise to
    add from the unconditional prediction.
    """
    extra, p = denoiser.sampler.sampler_extra_args, denoiser.p
    if extra.get("uncond") is None:
        return False
    hires = getattr(p, "hr_cfg", None) if getattr(p, "is_hr_pass", False) else None
    scale = float(hires or extra.get("cond_scale", 1.0))
    return scale != 1 or getattr(denoiser, "need_last_noise_uncond", False)


def guided(at: Call) -> bool:
    """Return whether the unconditional affects this denoiser call; options of the host can skip it to save time."""
    denoiser = at.denoiser
    if at.uncond is None or not counts(denoiser):
        return False
    early = getattr(shared.opts, "skip_early_cond", 0) or 0
    if early and denoiser.step / denoiser.total_steps <= early:
        return False
    least = denoiser.sampler.sampler_extra_args.get("s_min_uncond") or 0
    alternate = denoiser.step % 2 or getattr(shared.opts, "s_min_uncond_all", False)
    return not (alternate and least > 0 and float(at.sigma[0]) < least)


def evaluate(at: Call, rows: Sequence[int], conditioning: Any) -> torch.Tensor:
    """Evaluate the model without guidance, on other conditioning than the host's.

    Args:
        at: the host's call of the denoiser.
        rows: indices of the images to evaluate.
        conditioning: the conditioning of these images, one row per image.

    Returns:
        The model's output, one row per image: x̂0, or noise for samplers that count in timesteps.
    """
    index = torch.tensor(list(rows), device=at.x.device)
    x, sigma = at.x[index], at.sigma[index]
    image = at.image[index] if isinstance(at.image, torch.Tensor) and len(at.image) == at.images else at.image
    inner = at.denoiser.inner_model
    forge = getattr(getattr(inner, "inner_model", None), "forge_objects", None)
    if forge is not None:
        return _evaluate_forge(forge.unet, x, sigma, image, conditioning)
    if getattr(getattr(shared.sd_model, "model", None), "conditioning_key", "") == "crossattn-adm":
        return inner(x, sigma, cond={"c_crossattn": [conditioning], "c_adm": image})
    if isinstance(conditioning, dict):
        return inner(x, sigma, cond={**conditioning, "c_concat": [image]})
    return inner(x, sigma, cond={"c_crossattn": [conditioning], "c_concat": [image]})


def _evaluate_forge(unet: Any, x: Any, sigma: Any, image: Any, conditioning: Any) -> torch.Tensor:
    compiled_of, evaluated, condition = _forge_sampling()
    compiled = compiled_of(conditioning)
    if isinstance(image, torch.Tensor) and image.shape[-2:] == x.shape[-2:]:
        compiled[0]["model_conds"]["c_concat"] = condition(image)
    compiled[0]["control"] = unet.controlnet_linked_list
    answer, _ = evaluated(unet.model, compiled, None, x, sigma, unet.model_options)
    return answer


def _forge_sampling() -> tuple[Any, Any, Any]:
    """Return Forge's function that compiles conditioning, its function that evaluates it, and the class of a condition.

    reForge has the same three under Forge's old names.
    """
    try:
        from backend.sampling.condition import Condition, compile_conditions  # noqa: PLC0415 (only Forge has it)
        from backend.sampling.sampling_function import calc_cond_uncond_batch  # noqa: PLC0415 (as above)
    except ImportError:
        from ldm_patched.modules.conds import CONDRegular  # noqa: PLC0415 (only reForge has it)
        from ldm_patched.modules.samplers import calc_cond_uncond_batch as evaluated  # noqa: PLC0415 (as above)
        from modules_forge.forge_sampler import cond_from_a1111_to_patched_ldm  # noqa: PLC0415 (as above)

        return cond_from_a1111_to_patched_ldm, evaluated, CONDRegular
    return compile_conditions, calc_cond_uncond_batch, Condition


def encode(p: Any, texts: Sequence[str]) -> Any:
    """Encode negative prompts, one row per text, as a tensor [B, tokens, width] or a dictionary of such tensors."""
    hires = getattr(p, "is_hr_pass", False)
    width = getattr(p, "hr_upscale_to_x", 0) if hires else 0
    height = getattr(p, "hr_upscale_to_y", 0) if hires else 0
    prompts = prompt_parser.SdConditioning(
        texts, is_negative_prompt=True, width=width or p.width, height=height or p.height
    )
    prompts.distilled_cfg_scale = getattr(p, "distilled_cfg_scale", None)  # Forge's guidance-distilled models read it
    with devices.autocast():
        conditioning = shared.sd_model.get_learned_conditioning(prompts)
    return prompt_parser.DictWithShape(conditioning) if isinstance(conditioning, dict) else conditioning


def resume(denoiser: Any) -> None:
    """Load the denoiser to the device again: Forge may have unloaded it for another computation."""
    forge = getattr(getattr(denoiser.inner_model, "inner_model", None), "forge_objects", None)
    if forge is not None:
        try:
            from backend import memory_management  # noqa: PLC0415 (only Forge has it)
        except ImportError:
            from ldm_patched.modules import model_management as memory_management  # noqa: PLC0415 (only reForge has it)
        memory_management.load_model_gpu(forge.unet)


def checkpoint() -> tuple[int, Any]:
    """Return a key that identifies the loaded weights: a refiner replaces the weights but may keep the model object."""
    info = getattr(shared.sd_model, "sd_checkpoint_info", None)
    return id(shared.sd_model), getattr(info, "filename", None)


def negatives(denoiser: Any) -> list[str]:
    """Return the user's negative prompts at the current step, one per image, with prompt editing resolved."""
    p = denoiser.p
    hires = getattr(p, "is_hr_pass", False)
    texts = list((getattr(p, "hr_negative_prompts", None) if hires else None) or p.negative_prompts)
    schedule = getattr(prompt_parser, "get_learned_conditioning_prompt_schedules", None)
    if schedule is None:
        return texts
    first = getattr(p, "firstpass_steps", None) or p.steps
    again = denoiser.total_steps if hires else None
    old = {"use_old_scheduling": getattr(shared.opts, "use_old_scheduling", False)}
    known = {name: value for name, value in old.items() if name in inspect.signature(schedule).parameters}
    return words.at_step(schedule(texts, first, again, **known), denoiser.step)


def called_by_a_program() -> bool:
    """Return whether the current call comes from the host's HTTP API, by searching the call stack for its module.

    Nothing else tells: Forge's API sets restricted options through the same function as its settings page.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("modules.api"):
            return True
        frame = frame.f_back
    return False


def redraw(p: Any) -> Callable[[], torch.Tensor] | None:
    """Return a function that generates the current batch again from the same noise, by the host's own sampling.

    Returns:
        A function that returns the new images, [B, 3, H, W] of 0…1; None if the host offers no way, or with a hires
        fix, whose second pass changes state that the first one needs.
    """
    rng = getattr(p, "rng", None)
    state = {name: getattr(rng, name, None) for name in _OF_RNG}
    if state["seeds"] is None or not callable(getattr(p, "sample", None)) or getattr(p, "enable_hr", False):
        return None
    try:
        from modules.processing import decode_latent_batch  # noqa: PLC0415 (older hosts have none)
    except ImportError:
        return None

    def draw() -> torch.Tensor:
        p.rng = type(rng)(**state)
        upcast = getattr(devices, "unet_needs_upcast", False)
        with devices.without_autocast() if upcast else devices.autocast():
            latents = p.sample(
                conditioning=getattr(p, "c", None),
                unconditional_conditioning=getattr(p, "uc", None),
                seeds=p.seeds,
                subseeds=p.subseeds,
                subseed_strength=p.subseed_strength,
                prompts=p.prompts,
            )
        decoded = latents
        if not getattr(latents, "already_decoded", False):
            decoded = decode_latent_batch(p.sd_model, latents, target_device=devices.cpu, check_for_nans=True)
        return torch.clamp((torch.stack(list(decoded)).float() + 1.0) / 2.0, min=0.0, max=1.0)

    return draw


def wrap_pass(sampler: Any, look: Callable[[dict[str, Any]], None], release: Callable[[], None]) -> None:
    """Have functions called after every step of one sampling pass and at its end, by wrapping the sampler's methods.

    The sampler is restored after the pass, because in img2img the host uses one sampler for all batches of a job.

    Args:
        sampler: the host's sampler; all of them sample inside their method ``launch_sampling``.
        look: called after every step with the values that the host reports.
        release: called after the pass, even if the pass raises.
    """
    report, launch = sampler.callback_state, getattr(sampler, "launch_sampling", None)
    before = dict(vars(sampler))

    def step_done(values: dict[str, Any]) -> Any:
        look(values)
        return report(values)

    def launched(*args: Any, **values: Any) -> Any:
        try:
            return launch(*args, **values)  # type: ignore[misc]  # wrapped only where there is one
        finally:
            release()
            for name, wrapper in wrappers.items():
                if vars(sampler).get(name) is wrapper:  # not if another extension has wrapped this wrapper
                    vars(sampler).pop(name)
                    vars(sampler).update({name: before[name]} if name in before else {})

    wrappers: dict[str, Any] = {"callback_state": step_done} | ({"launch_sampling": launched} if launch else {})
    vars(sampler).update(wrappers)


def stopped() -> bool:
    """Return whether the user has interrupted or skipped the job."""
    return bool(getattr(shared.state, "interrupted", False) or getattr(shared.state, "skipped", False))


def picture(latents: torch.Tensor, index: int, decoder: int) -> Any:
    """Decode one image of latents [B, C, H, W] to a picture, by the host's decoder of that number."""
    decoded = sd_samplers_common.sample_to_image(latents, index, decoder)
    if isinstance(decoded, torch.Tensor):
        from PIL import Image  # noqa: PLC0415 (development versions give levels [H, W, 3])

        decoded = Image.fromarray(decoded.cpu().numpy())
    return decoded


def tensor(shown: Any, like: torch.Tensor) -> torch.Tensor:
    """Convert a picture to a tensor [3, H, W] of 0…1 that the host's truncation turns into the same 8-bit values."""
    levels = torch.frombuffer(bytearray(shown.convert("RGB").tobytes()), dtype=torch.uint8)
    whole = levels.view(shown.height, shown.width, 3).permute(2, 0, 1).float()
    return ((whole + 0.25) / 255).clamp(max=1.0).to(like)


def similarities(latents: torch.Tensor, before: torch.Tensor | None) -> list[float]:
    """Return per image the cosine similarity of its prediction to the earlier one; empty without an earlier one."""
    if before is None or before.shape != latents.shape:
        return []
    cosines = torch.nn.functional.cosine_similarity(latents.flatten(1).float(), before.flatten(1).float())
    return [min(max(float(cosine), -1.0), 1.0) for cosine in cosines]


def brought(p: Any) -> list[Any]:
    """Return the input pictures of an img2img job, without repetition."""
    from PIL import Image  # noqa: PLC0415 (kept beside its only other use)

    images = [image for image in getattr(p, "init_images", None) or () if isinstance(image, Image.Image)]
    return list({id(image): image for image in images}.values())


def about(p: Any) -> dict[str, dict[str, Any]]:
    """Return the fields ``host`` and ``run`` that describe a job in the audit record."""
    try:
        from modules.launch_utils import git_tag  # noqa: PLC0415 (older hosts have none)

        version = str(git_tag())
    except (ImportError, OSError, ValueError):
        version = ""
    seeds = getattr(p, "seeds", None) or [getattr(p, "seed", None)]
    run = {
        "seed": int(seeds[0]) if seeds[0] is not None else None,
        "scheduler": getattr(p, "sampler_name", None),
        "guidance_scale": float(p.cfg_scale),
        "size": [p.width, p.height],
    }
    name = "forge" if hasattr(shared.sd_model, "forge_objects") else "a1111"
    target = "img2img" if getattr(p, "init_images", None) else "txt2img"
    return {"host": {"name": name, "version": version[:200], "target": target}, "run": run}
