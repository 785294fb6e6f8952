"""What is taken of ComfyUI: conditioning, one more prediction, pictures. Nothing else here imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return [[torch.cat([cond, users[0]["cross_attn"].to(cond)], dim=1), options]]


def prepared(
    model: Any, conditioning: list[Any], beside: Sequence[dict[str, Any]], x: Tensor, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """Conditioning as the model takes it, in the middle of a run.

    Args:
        model: that runs.
        conditioning: from :func:`encode`.
        beside: the conditioning that the run itself was given; control nets and whatever else is concatenated to the
            input are taken from it, as a difference of predictions should be one of words alone.
        x: the input, [B, ...].
        rows: the images of the batch that it is for.
    """
    import comfy.sampler_helpers  # noqa: PLC0415 (ComfyUI's own, there when this runs)
    import comfy.samplers  # noqa: PLC0415

    conds = comfy.sampler_helpers.convert_cond(conditioning)
    comfy.samplers.calculate_start_end_timesteps(model, conds)
    part = x[list(rows)]
    conds = comfy.samplers.encode_model_conds(model.extra_conds, conds, part, x.device, "negative")
    if not beside:
        return list(conds)
    kept = {key: value for key, value in beside[0].items() if key not in _WHERE_AND_WHEN}
    same = {key: _of_rows(value, rows, x.shape[0]) for key, value in kept.get("model_conds", {}).items()}
    return [{**kept, **cond, "model_conds": {**same, **cond["model_conds"]}} for cond in conds]


def predict(model: Any, conds: list[dict[str, Any]], x: Tensor, sigma: Tensor, options: dict[str, Any]) -> Tensor:
    """The denoised image under one conditioning, without guidance."""
    import comfy.samplers  # noqa: PLC0415 (ComfyUI's own, there when this runs)

    return comfy.samplers.calc_cond_batch(model, [conds], x, sigma, options)[0]


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


def pictures(images: Tensor) -> list[Image.Image]:
    """ComfyUI's images, [B, H, W, 3] of 0…1, as pictures; of a video, [B, T, H, W, 3], the frame in the middle."""
    if images.ndim == _VIDEO:
        images = images[:, images.shape[1] // 2]
    levels = (images[..., :3].float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    return [Image.fromarray(each) for each in levels]


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


def _of_rows(cond: Any, rows: Sequence[int], images: int) -> Any:
    value = getattr(cond, "cond", None)
    if not isinstance(value, torch.Tensor) or value.shape[0] != images or not hasattr(cond, "_copy_with"):
        return cond
    return cond._copy_with(value[list(rows)])  # noqa: SLF001 (ComfyUI's conditions have no other way to be copied)
