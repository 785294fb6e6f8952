"""Find the settings of the text-to-image model to measure, and the methods that can run on it."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.loading import MODELS, embedded
from dnp_guard.lab.evaluate.design import KNOWING
from dnp_guard.lab.evaluate.methods import METHODS, UNGUIDED

if TYPE_CHECKING:
    from collections.abc import Mapping

OPEN = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)
"""Pipelines whose sampling loop the published methods can take part in."""

ANYWHERE = ("unguarded", "static-replace", "dnp-guard", "dnp-guard-retry", "dnp-guard-separate", "dnp-guard-whole-list")
"""Methods that need only the pipeline's own arguments."""

_FEW_STEPS = {"LCMScheduler": 4, "TCDScheduler": 4}
"""Default number of steps per scheduler of distilled models, which run without classifier-free guidance."""

_REPLACED = "DPMSolverMultistepScheduler"
SAMPLERS = ("dpm++",)
"""Samplers that may replace a model's own: DPM-Solver++ (2M), with the model's noise schedule."""


@dataclass(frozen=True, slots=True)
class Model:
    """A text-to-image model with its settings for a run.

    Attributes:
        name: name of the model, as the user gave it.
        revision: commit or digest of its weights.
        steps: number of steps of the sampler.
        guidance_scale: scale of classifier-free guidance, or the scale that a distilled model takes as an input.
        refused: for every method that cannot run on the model, the reason.
    """

    name: str
    revision: str
    steps: int
    guidance_scale: float
    refused: Mapping[str, str]

    @property
    def embedded(self) -> bool:
        """Whether the model is one of the embedded Glyphs models."""
        return self.name in MODELS


def measured(
    name: str, *, steps: int | None = None, guidance: float | None = None, sampler: str | None = None
) -> Model:
    """Read the settings of a model from its files, without loading it.

    Args:
        name: name of an embedded model, a folder, or a hub id that is cached.
        steps: number of steps of the sampler; None for the model's default.
        guidance: guidance scale; None for the model's default.
        sampler: one of :data:`SAMPLERS`, in place of the model's own; None to keep that.

    Raises:
        DnpGuardError: if there is no such model or sampler, or the sampler cannot replace the model's own.
    """
    from dnp_guard.vlm.local.weights import weights_digest  # noqa: PLC0415 (imports torch)

    if sampler is not None and sampler not in SAMPLERS:
        raise DnpGuardError(f"there is no sampler {sampler!r}", hint=f"Use {', '.join(SAMPLERS)}, or none.")

    if name in MODELS:
        own = embedded(name)
        scale = own.guidance_scale if guidance is None else guidance
        refused = {} if scale > 1 else dict.fromkeys(set(METHODS) - set(UNGUIDED), _UNGUIDED)
        if sampler is not None:
            refused["dng"] = _not_ddim(_REPLACED)
        return Model(name, weights_digest(own.denoiser)[:12], steps or own.steps, scale, refused)
    folder = _folder(name)
    index = _read(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    scheduler = str((index.get("scheduler") or [None, None])[1])
    if sampler is not None:
        _require_replaceable(name, folder, kind, scheduler, sampler)
        scheduler = _REPLACED
    few = _FEW_STEPS.get(scheduler)
    parameters = _parameters(kind)
    own_steps = few or _default(parameters, "num_inference_steps", 50)
    distilled = _config(folder, "unet").get("time_cond_proj_dim") is not None
    own_scale = 1.0 if few and not distilled else _default(parameters, "guidance_scale", 1.0)
    scale = float(own_scale if guidance is None else guidance)
    guided = scale > 1 and not distilled and not _config(folder, "transformer").get("guidance_embeds")
    second = _config(folder, "text_encoder_2")
    alike = second.get("projection_dim") == second.get("hidden_size")
    refused = {
        method: reason
        for method in METHODS
        if (reason := _refusal(method, kind, scheduler, parameters, guided=guided, alike=alike))
    }
    return Model(name, _revision(folder), int(steps or own_steps), scale, refused)


def load(name: str, sampler: str | None = None) -> Any:
    """Load a pipeline for measurement: without its safety checker, which would change the result.

    Args:
        name: name of an embedded model, a folder, or a hub id that is cached.
        sampler: one of :data:`SAMPLERS`, in place of the model's own; None to keep that.
    """
    from dnp_guard.hosts.diffusers.loading import load_model  # noqa: PLC0415 (takes seconds)

    pipe = load_model(name)
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.safety_checker = None
    if sampler is not None:
        from diffusers import DPMSolverMultistepScheduler  # noqa: PLC0415

        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, algorithm_type="dpmsolver++")
    return pipe


_UNGUIDED = "it needs classifier-free guidance, which this model runs without"


def _refusal(
    method: str, kind: str, scheduler: str, parameters: Mapping[str, Any], *, guided: bool, alike: bool
) -> str:
    """Return the reason why a method cannot run on a model; empty if it can."""
    reasons = {
        "it asks the detector of the embedded models, which judges their images only": method == "oracle",
        "it is told which content a prompt asks for, which is known of embedded prompts only": method in KNOWING,
        _UNGUIDED: not guided and method not in UNGUIDED,
        f"it takes part in the sampling loop, which works with {', '.join(OPEN)}, and this is a {kind}": (
            method not in ANYWHERE and kind not in OPEN
        ),
        f"{kind} takes no negative prompt at its guidance scale": (
            method == "static-replace" and ("negative_prompt" not in parameters or "true_cfg_scale" in parameters)
        ),
        "it projects tokens by pooled embeddings, and those of this model's second text encoder are of another size": (
            method == "safree" and not alike
        ),
        _not_ddim(scheduler): method == "dng" and scheduler != "DDIMScheduler",
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _not_ddim(scheduler: str) -> str:
    return f"it samples with DDIM's own noise, and the scheduler is {scheduler}"


def _require_replaceable(name: str, folder: Path, kind: str, scheduler: str, sampler: str) -> None:
    """Refuse to replace the sampler of a latent consistency pipeline, or of a model without a schedule of betas."""
    scheduled = folder / "scheduler" / "scheduler_config.json"
    if kind.startswith("LatentConsistency") or not scheduled.exists() or "beta_schedule" not in _read(scheduled):
        raise DnpGuardError(
            f"{name}: the sampler {sampler!r} cannot take the place of {scheduler} in a {kind}",
            hint="Leave --sampler out.",
        )


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise DnpGuardError(
            f"{name}: neither an embedded model ({', '.join(MODELS)}), nor a folder here, nor in the hub's cache",
            hint=f"Check the path, or download it first: hf download {name}",
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DnpGuardError(
            f"{path}: cannot be read: {error}", hint="Name a folder that save_pretrained wrote."
        ) from error
    return config


def _config(folder: Path, part: str) -> dict[str, Any]:
    path = folder / part / "config.json"
    return _read(path) if path.exists() else {}


def _parameters(kind: str) -> Mapping[str, Any]:
    import diffusers  # noqa: PLC0415 (takes seconds)

    pipeline = getattr(diffusers, kind, None)
    return inspect.signature(pipeline.__call__).parameters if pipeline is not None else {}


def _default(parameters: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = parameters[name].default if name in parameters else None
    return value if isinstance(value, int | float) else otherwise


def _revision(folder: Path) -> str:
    """Return the commit of a hub snapshot, or a digest of all weights of another folder."""
    if folder.parent.name == "snapshots":
        return folder.name[:12]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
