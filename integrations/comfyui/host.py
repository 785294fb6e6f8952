"""What is taken of ComfyUI: conditioning, one more prediction, pictures. Nothing else here imports it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

_WHERE_AND_WHEN = {
    *("area", "mask", "strength", "mask_strength", "set_area_to_bounds"),
    *("start_percent", "end_percent", "timestep_start", "timestep_end"),
}
"""What keeps a conditioning to a part of the picture or of the run; a negative of the guard's holds everywhere."""

_VIDEO = 5


def version() -> str:
    """ComfyUI's version, for the record."""
    try:
        from comfyui_version import __version__  # noqa: PLC0415 (older ones have none)
    except ImportError:
        return "unknown"
    return str(__version__)


def wraps_sampling(model: Any) -> bool:
    """Whether a run can be wrapped; a ComfyUI before 0.3.13 or so only has its guidance wrapped."""
    return hasattr(model, "add_wrapper_with_key")


def cfg(guider: Any) -> float:
    """The scale of guidance of a run; 1 where the guider has no negative to guide from."""
    conds = getattr(guider, "conds", None) or getattr(guider, "original_conds", {})
    return float(getattr(guider, "cfg", 1.0)) if conds.get("negative") else 1.0


def running_prompt() -> str | None:
    """The id of the workflow that runs now; None without a server."""
    try:
        from server import PromptServer  # noqa: PLC0415 (a part of ComfyUI)
    except ImportError:
        return None
    return getattr(getattr(PromptServer, "instance", None), "last_prompt_id", None)


def encode(clip: Any, text: str) -> list[Any]:
    """A text as conditioning, as the node CLIP Text Encode makes it."""
    tokens = clip.tokenize(text)
    if hasattr(clip, "encode_from_tokens_scheduled"):
        return list(clip.encode_from_tokens_scheduled(tokens))
    cond, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    return [[cond, {"pooled_output": pooled}]]


def joined(conditioning: list[Any], users: Sequence[dict[str, Any]]) -> list[Any]:
    """A conditioning followed by the user's negative, token after token."""
    if not users or users[0].get("cross_attn") is None:
        return conditioning
    cond, options = conditioning[0][:2]
    masks: list[Any] = [each.get("attention_mask") for each in (options, users[0])]
    if all(mask is not None for mask in masks):
        options = {**options, "attention_mask": torch.cat([mask.to(cond.device) for mask in masks], dim=1)}
    return [[torch.cat([cond, users[0]["cross_attn"].to(cond)], dim=1), options]]


def executing() -> tuple[str, int] | None:
    """The node that runs now, and at which item of the list that it is mapped over; None where ComfyUI does not say."""
    try:
        from comfy_execution.utils import get_executing_context  # noqa: PLC0415 (older ones have none)
    except ImportError:
        return None
    context = get_executing_context()
    return None if context is None else (str(context.node_id), context.list_index or 0)


def prepared(
    model: Any,
    conditioning: list[Any],
    beside: Sequence[dict[str, Any]],
    x: Tensor,
    rows: Sequence[int],
    given: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Conditioning as the model takes it, in the middle of a run.

    Args:
        model: that runs.
        conditioning: from :func:`encode`.
        beside: the conditioning that the run itself was given; control nets, a Flux guidance and all else that is no
            words is taken from it, as a difference of predictions should be one of words alone.
        x: the input, [B, ...].
        rows: the images of the batch that it is for.
        given: ``latent_image``, ``denoise_mask`` and ``seed`` of the run, which inpainting models make an input of.
    """
    import comfy.sampler_helpers  # noqa: PLC0415 (ComfyUI's own, there when this runs)
    import comfy.samplers  # noqa: PLC0415

    words = comfy.sampler_helpers.convert_cond(conditioning)
    comfy.samplers.calculate_start_end_timesteps(model, words)
    kept = {key: value for key, value in beside[0].items() if key not in _WHERE_AND_WHEN} if beside else {}
    same = kept.get("model_conds", {})
    conds = [{**kept, **cond, "model_conds": {**same, **cond["model_conds"]}} for cond in words]
    latent, mask = given.get("latent_image"), given.get("denoise_mask")
    if latent is not None:
        latent = latent.to(x.device)
        latent = model.process_latent_in(latent) if latent.any() else latent  # an empty one is not scaled by the host
    if mask is not None:
        mask = comfy.sampler_helpers.prepare_mask(mask, x.shape, x.device)
    whole = {"latent_image": latent, "denoise_mask": mask, "seed": given.get("seed")}
    conds = comfy.samplers.encode_model_conds(model.extra_conds, conds, x, x.device, "negative", **whole)
    return [{**cond, "model_conds": _of_rows(cond["model_conds"], rows, x.shape[0])} for cond in conds]


def predict(model: Any, conds: list[dict[str, Any]], x: Tensor, sigma: Tensor, options: dict[str, Any]) -> Tensor:
    """The denoised image under one conditioning, without guidance."""
    import comfy.samplers  # noqa: PLC0415 (ComfyUI's own, there when this runs)

    return comfy.samplers.calc_cond_batch(model, [conds], x, sigma, options)[0]


def repeated(guider: Any, draw: Callable[[], Any]) -> Callable[[], Any]:
    """A run as it can be made again: from the same random numbers and conditioning, which then end as after one run.

    Args:
        guider: whose run it is, which changes its conditions while it runs.
        draw: makes the run, for the first time after this.
    """
    conds = _copied(getattr(guider, "conds", {}))
    before = _random_state()

    def again() -> Any:
        after = _random_state()
        guider.conds = _copied(conds)
        _set_random_state(before)
        try:
            return draw()
        finally:
            _set_random_state(after)

    return again


def interrupted(error: Exception) -> bool:
    """Whether an error is ComfyUI's way to end a workflow that its user has stopped."""
    return type(error).__name__ == "InterruptProcessingException"


def _copied(conds: Mapping[str, Any]) -> dict[str, Any]:
    return {key: [dict(cond) for cond in value] for key, value in conds.items()}


def _random_state() -> tuple[Any, Any]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[Any, Any]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def reloaded(patcher: Any) -> None:
    """See that the model is where it was: decoding or encoding in the middle of a run may have put it aside."""
    import comfy.model_management  # noqa: PLC0415 (ComfyUI's own, there when this runs)

    comfy.model_management.load_models_gpu([patcher])


def decoded(vae: Any, model: Any, x0: Tensor) -> list[Image.Image]:
    """Predicted latents as pictures: by the VAE, or without one by the latent format's own colours.

    Raises:
        ValueError: there is no way, or the prediction is no number.
    """
    if not x0.isfinite().all():
        raise ValueError("the prediction is not finite")
    if vae is not None:
        return pictures(vae.decode(model.process_latent_out(x0)))
    factors = getattr(model.latent_format, "latent_rgb_factors", None)
    if factors is None:
        raise ValueError("this model's latents cannot be shown without its VAE: connect it to DNP Guard")
    colours = torch.tensor(factors, device=x0.device, dtype=x0.dtype)
    bias = getattr(model.latent_format, "latent_rgb_factors_bias", None)
    shown = torch.einsum("bc...,cr->b...r", x0, colours) + (0 if bias is None else torch.tensor(bias).to(x0))
    return pictures(shown / 2 + 0.5)


def brought(guider: Any, latent_image: Any) -> list[Any]:
    """Return the latents of the pictures that a run starts from or refers to, but for empty ones.

    Args:
        guider: whose run it is; an edit has its pictures among the conditions.
        latent_image: where the run starts.
    """
    found = [latent_image] if latent_image is not None else []
    for conds in getattr(guider, "conds", {}).values():
        for cond in conds:
            beside = (cond.get("concat_latent_image"), *(cond.get("reference_latents") or ()))
            found += [latents for latents in beside if latents is not None]
    return [latents for latents in {id(each): each for each in found}.values() if not _is_empty(latents)]


def _is_empty(latents: Any) -> bool:
    """Whether latents have one value per channel, as those that hold no picture; False for those of another form."""
    if not isinstance(latents, torch.Tensor) or latents.is_nested:
        return False
    planes = latents.flatten(2)
    return bool((planes == planes[..., :1]).all())


def shown_of(latents: Sequence[Any], vae: Any, model: Any) -> list[Image.Image]:
    """Decode the pictures of some latents as the workflow has them, each once.

    Raises:
        ValueError: there is no way to show one.
    """
    shown = [picture for each in latents for picture in decoded(vae, model, model.process_latent_in(each))]
    return list({(picture.size, picture.tobytes()): picture for picture in shown}.values())


def pictures(images: Tensor) -> list[Image.Image]:
    """ComfyUI's images, [B, H, W, 3] of 0…1, as pictures; of a video, [B, T, H, W, 3], the frame in the middle."""
    if images.ndim == _VIDEO:
        images = images[:, images.shape[1] // 2]
    levels = (images[..., :3].float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    return [Image.fromarray(each) for each in levels]


def shown(picture: Image.Image) -> list[dict[str, str]]:
    """Save a picture for the page to show below a node, and return what names it; nothing without temporary files."""
    try:
        import folder_paths  # noqa: PLC0415 (ComfyUI's own)
    except ImportError:
        return []
    folder, name = Path(folder_paths.get_temp_directory()), f"dnp-guard-{uuid4().hex}.png"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, compress_level=1)
    return [{"filename": name, "subfolder": "", "type": "temp"}]


def tensor(picture: Image.Image) -> Tensor:
    """A picture as one of ComfyUI's images, [H, W, 3]."""
    raw = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return raw.view(picture.height, picture.width, 3).float() / 255


def covered(latents: Tensor, allowed: Sequence[str]) -> Tensor:
    """Latents as the host's own preview may show them: withheld, blurred beyond recognition, or the very same."""
    if all(each == "allow" for each in allowed):
        return latents
    shown = latents.clone()
    for index, each in enumerate(allowed):
        if each == "withhold":
            shown[index] = 0
        elif each != "allow":
            shown[index] = latents[index].flatten(1).mean(1).view(-1, *[1] * (latents.ndim - 2))
    return shown


def _of_rows(conds: Mapping[str, Any], rows: Sequence[int], images: int) -> dict[str, Any]:
    """Conditions of a batch as those of some of its images; what is one for all stays so."""

    def part(value: Any) -> Any:
        whole = isinstance(value, torch.Tensor) and value.shape[:1] == (images,)
        return value[list(rows)] if whole else value

    taken = {}
    for key, cond in conds.items():
        value = getattr(cond, "cond", None)
        kept = [part(each) for each in value] if isinstance(value, list) else part(value)
        # ComfyUI's conditions have no other way to be copied.
        taken[key] = cond if kept is value or not hasattr(cond, "_copy_with") else cond._copy_with(kept)  # noqa: SLF001
    return taken
