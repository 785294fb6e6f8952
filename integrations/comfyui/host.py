"""Call ComfyUI to encode texts, evaluate the model, decode latents and convert pictures.

Few other modules of the extension import ComfyUI.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakValueDictionary

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WHERE_AND_WHEN = {
    *("area", "mask", "strength", "mask_strength", "set_area_to_bounds"),
    *("start_percent", "end_percent", "timestep_start", "timestep_end"),
}
"""Keys that restrict a conditioning to a part of the picture or of the run; the guard's negatives apply everywhere."""

_SOUND, _VIDEO = 3, 5
"""Numbers of dimensions of the latents of sounds, [B, C, T], and of the latents and the images of videos."""

_DRAWN: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
"""The latents that guarded runs returned, by ``id``, as long as ComfyUI keeps them."""


def version() -> str:
    """Return ComfyUI's version for the audit record; ``unknown`` for an old one that does not tell."""
    try:
        from comfyui_version import __version__  # noqa: PLC0415 (older ones have none)
    except ImportError:
        return "unknown"
    return str(__version__)


def wraps_sampling(model: Any) -> bool:
    """Return whether this ComfyUI can wrap a sampler run; before about 0.3.13 it could wrap only the guidance."""
    return hasattr(model, "add_wrapper_with_key")


def cfg(guider: Any) -> float:
    """Return the guidance scale of a run; 1 if the guider has no negative prompt."""
    conds = getattr(guider, "conds", None) or getattr(guider, "original_conds", {})
    return float(getattr(guider, "cfg", 1.0)) if conds.get("negative") else 1.0


def running_prompt() -> str | None:
    """Return the id of the running workflow; None without a server."""
    try:
        from server import PromptServer  # noqa: PLC0415 (a part of ComfyUI)
    except ImportError:
        return None
    return getattr(getattr(PromptServer, "instance", None), "last_prompt_id", None)


def encode(clip: Any, text: str) -> list[Any]:
    """Encode a text as the node *CLIP Text Encode* does, and return the conditioning."""
    tokens = clip.tokenize(text)
    if hasattr(clip, "encode_from_tokens_scheduled"):
        return list(clip.encode_from_tokens_scheduled(tokens))
    cond, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    return [[cond, {"pooled_output": pooled}]]


def joined(conditioning: list[Any], users: Sequence[dict[str, Any]]) -> list[Any]:
    """Append the tokens of the user's negative prompt to a conditioning.

    Args:
        conditioning: the conditioning, from :func:`encode`.
        users: the run's own unconditional conditions; may be empty.
    """
    if not users or users[0].get("cross_attn") is None:
        return conditioning
    cond, options = conditioning[0][:2]
    masks: list[Any] = [part.get("attention_mask") for part in (options, users[0])]
    if all(mask is not None for mask in masks):
        options = {**options, "attention_mask": torch.cat([mask.to(cond.device) for mask in masks], dim=1)}
    return [[torch.cat([cond, users[0]["cross_attn"].to(cond)], dim=1), options]]


def executing() -> tuple[str, int] | None:
    """Return the id of the running node, and the index of its current item if it runs once per item of a list.

    Return None if ComfyUI does not tell.
    """
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
    """Return conditioning in the form in which the model takes it, in the middle of a run.

    Args:
        model: the running model.
        conditioning: the conditioning, from :func:`encode`.
        beside: the run's own conditions for the prediction to compare with. Everything but the words, such as a
            ControlNet or Flux's guidance value, is copied from them, so that the predictions differ by words only.
        x: the model's input, [B, ...].
        rows: indices of the images to predict.
        given: ``latent_image``, ``denoise_mask`` and ``seed`` of the run, which inpainting models take as input.
    """
    import comfy.sampler_helpers  # noqa: PLC0415 (ComfyUI's own, there when this runs)
    import comfy.samplers  # noqa: PLC0415

    words = comfy.sampler_helpers.convert_cond(conditioning)
    comfy.samplers.calculate_start_end_timesteps(model, words)
    settings = {key: value for key, value in beside[0].items() if key not in _WHERE_AND_WHEN} if beside else {}
    same = settings.get("model_conds", {})
    conds = [{**settings, **cond, "model_conds": {**same, **cond["model_conds"]}} for cond in words]
    latent, mask = given.get("latent_image"), given.get("denoise_mask")
    if latent is not None:
        latent = latent.to(x.device)
        latent = model.process_latent_in(latent) if latent.any() else latent  # the host does not scale an empty one
    if mask is not None:
        mask = comfy.sampler_helpers.prepare_mask(mask, x.shape, x.device)
    whole = {"latent_image": latent, "denoise_mask": mask, "seed": given.get("seed")}
    conds = comfy.samplers.encode_model_conds(model.extra_conds, conds, x, x.device, "negative", **whole)
    return [{**cond, "model_conds": _of_rows(cond["model_conds"], rows, x.shape[0])} for cond in conds]


def predict(model: Any, conds: list[dict[str, Any]], x: Tensor, sigma: Tensor, options: dict[str, Any]) -> Tensor:
    """Return the model's prediction of the denoised latents under one conditioning, without guidance."""
    import comfy.samplers  # noqa: PLC0415 (ComfyUI's own, there when this runs)

    return comfy.samplers.calc_cond_batch(model, [conds], x, sigma, options)[0]


def repeated(guider: Any, draw: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that repeats a run with the same random numbers and conditions as the first time.

    Every repetition restores the random state that it found, so that later nodes get the same numbers as after one run.

    Args:
        guider: the guider of the run, which changes its conditions during the run.
        draw: makes the run; call this function before the first run.
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


def _copied(conds: Mapping[str, Any]) -> dict[str, Any]:
    return {key: [dict(cond) for cond in value] for key, value in conds.items()}


def _random_state() -> tuple[Any, Any]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[Any, Any]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def reloaded(patcher: Any) -> None:
    """Load the model to its device again: decoding or encoding in the middle of a run may have unloaded it."""
    import comfy.model_management  # noqa: PLC0415 (ComfyUI's own, there when this runs)

    comfy.model_management.load_models_gpu([patcher])


def decoded(vae: Any, model: Any, x0: Tensor) -> list[Image.Image]:
    """Decode predicted latents to pictures with the VAE, or without one by the latent format's colour factors.

    Raises:
        ValueError: there is neither of them, or the prediction is not finite.
    """
    return pictures(_images(vae, model, x0))


def _images(vae: Any, model: Any, x0: Tensor) -> Tensor:
    """Decode predicted latents to ComfyUI's image tensors; see :func:`decoded`."""
    if not x0.isfinite().all():
        raise ValueError("the prediction is not finite")
    if vae is not None:
        images: Tensor = vae.decode(model.process_latent_out(x0))
        return images
    factors = getattr(model.latent_format, "latent_rgb_factors", None)
    if factors is None:
        raise ValueError("this model's latents cannot be shown without its VAE: connect it to DNP Guard")
    colours = torch.tensor(factors, device=x0.device, dtype=x0.dtype)
    bias = getattr(model.latent_format, "latent_rgb_factors_bias", None)
    shown = torch.einsum("bc...,cr->b...r", x0, colours) + (0 if bias is None else torch.tensor(bias).to(x0))
    return shown / 2 + 0.5


def brought(guider: Any, latent_image: Any) -> list[Any]:
    """Return the latents of the input pictures that a run starts from or refers to.

    Empty latents are left out, because they hold no picture. The results of earlier guarded runs are left out too: a
    policy may excuse findings that the input pictures have already, and must not excuse those of an earlier run.

    Args:
        guider: the guider of the run; editing models have their pictures among its conditions.
        latent_image: the latents that the run starts from; None if they hold no finished picture.
    """
    candidates = [latent_image] if latent_image is not None else []
    for conds in getattr(guider, "conds", {}).values():
        for cond in conds:
            references = cond.get("reference_latents")
            references = [references] if isinstance(references, torch.Tensor) else references or ()
            candidates += [latents for latents in (cond.get("concat_latent_image"), *references) if latents is not None]
    unlike = {id(latents): latents for latents in candidates if _DRAWN.get(id(latents)) is not latents}
    return [latents for latents in unlike.values() if not _is_empty(latents)]


def remembered(made: Tensor) -> Tensor:
    """Convert the latents of a guarded run to the form in which ComfyUI passes them on, remember and return them."""
    import comfy.model_management  # noqa: PLC0415 (ComfyUI's own, there when this runs)

    management = comfy.model_management
    form = {"device": "intermediate_device", "dtype": "intermediate_dtype"}
    made = made.to(**{key: getattr(management, name)() for key, name in form.items() if hasattr(management, name)})
    _DRAWN[id(made)] = made
    return made


def keeps_noise(noise: Tensor, sigmas: Tensor) -> bool:
    """Return whether a run continues the noisy latents of an earlier one: it adds no noise, and its sigmas fall.

    They rise where a run turns a picture back into noise.
    """
    return not noise.any() and float(sigmas[0]) > float(sigmas[-1])


def _is_empty(latents: Any) -> bool:
    """Return whether latents hold no picture, because every channel is constant; False for latents of unknown form."""
    if not isinstance(latents, torch.Tensor) or latents.is_nested or latents.ndim < _SOUND:
        return False
    planes = latents.flatten(2)
    return bool((planes == planes[..., :1]).all())


def shown_of(latents: Sequence[Any], vae: Any, model: Any) -> list[list[Image.Image]]:
    """Decode latents of the workflow, and return the list of frames of every picture or video, without repetition.

    Raises:
        ValueError: there is no way to decode some of them.
    """
    shown = [video for tensor in latents for video in frames(_images(vae, model, model.process_latent_in(tensor)))]
    return list({tuple((frame.size, frame.tobytes()) for frame in video): video for video in shown}.values())


def pictures(images: Tensor) -> list[Image.Image]:
    """Convert image tensors, [B, H, W, 3] of 0…1, to pictures; for videos, [B, T, H, W, 3], their middle frames."""
    if images.ndim == _VIDEO:
        images = images[:, images.shape[1] // 2]
    return _converted(images)


def frames(images: Tensor) -> list[list[Image.Image]]:
    """Convert image tensors to lists of frames: one per picture; the first, middle and last one per video."""
    videos = images if images.ndim == _VIDEO else images[:, None]
    length = videos.shape[1]
    return [_converted(video[sorted({0, length // 2, length - 1})]) for video in videos]


def _converted(images: Tensor) -> list[Image.Image]:
    levels = (images[..., :3].float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    return [Image.fromarray(level) for level in levels]


def shown(picture: Image.Image) -> list[dict[str, str]]:
    """Save a picture for the page to show below a node; return the file's description, or [] outside of ComfyUI."""
    try:
        import folder_paths  # noqa: PLC0415 (ComfyUI's own)
    except ImportError:
        return []
    folder, name = Path(folder_paths.get_temp_directory()), f"dnp-guard-{uuid4().hex}.png"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, compress_level=1)
    return [{"filename": name, "subfolder": "", "type": "temp"}]


def tensor(picture: Image.Image) -> Tensor:
    """Convert a picture to an image tensor of ComfyUI, [H, W, 3] of 0…1."""
    raw = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return raw.view(picture.height, picture.width, 3).float() / 255


def covered(latents: Tensor, allowed: Sequence[str]) -> Tensor:
    """Cover latents for ComfyUI's own preview: set images to zero, to their average colour, or leave them unchanged.

    Args:
        latents: predicted or noisy latents, [B, C, ...].
        allowed: how users may see each image: ``withhold``, ``blur`` or ``allow``.
    """
    if all(way == "allow" for way in allowed):
        return latents
    shown = latents.clone()
    for index, way in enumerate(allowed):
        if way == "withhold":
            shown[index] = 0
        elif way != "allow":
            shown[index] = latents[index].flatten(1).mean(1).view(-1, *[1] * (latents.ndim - 2))
    return shown


def _of_rows(conds: Mapping[str, Any], rows: Sequence[int], images: int) -> dict[str, Any]:
    """Select the rows of some images in conditions that have one row per image; other conditions stay as they are."""

    def part(value: Any) -> Any:
        whole = isinstance(value, torch.Tensor) and value.shape[:1] == (images,)
        return value[list(rows)] if whole else value

    taken = {}
    for key, cond in conds.items():
        value = getattr(cond, "cond", None)
        selected = [part(item) for item in value] if isinstance(value, list) else part(value)
        # ComfyUI's conditions offer no public way to copy them.
        taken[key] = cond if selected is value or not hasattr(cond, "_copy_with") else cond._copy_with(selected)  # noqa: SLF001
    return taken
