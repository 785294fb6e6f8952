"""Guard one request in the stages of SGLang-Diffusion: its steps, its negatives, and its finished image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.generation.reach import in_attention
from dnp_guard.generation.redrawing import check_time
from dnp_guard.generation.state import Request
from dnp_guard.hosts.diffusers import prediction
from dnp_guard.hosts.diffusers.asking.arguments import differing
from dnp_guard.hosts.kdiffusion.generation import Generation
from dnp_guard.hosts.kdiffusion.progress import Progress
from dnp_guard.preview.autoencoder import check_finite, to_pictures, to_tensor
from dnp_guard.steering.branch import Branch

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.sglang_stages import Stages
    from dnp_guard.policy import Policy

_IMAGE, _VIDEO = 4, 5
"""Number of dimensions of a batch of images, and of videos."""
_POLICY = "CFGPolicy"
_BRANCHES = ([True], [True, False])
"""Whether each guidance branch is conditional: without guidance, and with it."""
_UNGUARDED = (
    "return_trajectory_latents",
    "return_trajectory_decoded",
    "rollout",
    "enable_teacache",
    "enable_cache_dit",
    "enable_spectrum",
    "session",
)
"""Settings that a guarded request must not have: they deliver unchecked pictures, or skip steps."""


def check(request: Any) -> None:
    """Check that a request does not bypass the guard.

    Raises:
        CannotSteer: the request is not for one prompt and one image, or has an option that bypasses the guard.
    """
    if not isinstance(request.prompt, str) or request.num_outputs_per_prompt != 1:
        raise CannotSteer("a guarded request needs one prompt and one image", hint="Serve without dynamic batching.")
    task = getattr(request, "task_type", None)  # None means the model's own task
    if task is not None and not task.is_image_gen():  # the engine writes a video to its file while it decodes it
        raise CannotSteer("a request for a video is not guarded", hint="Use --backend diffusers.")
    if asked := [name for name in _UNGUARDED if getattr(request, name, None)]:
        raise CannotSteer(f"a guarded request cannot have {', '.join(asked)}", hint="Leave it out.")


def check_policy(policy: Policy, option: str = "--backend diffusers") -> None:
    """Check that an engine's own pipeline can steer as a policy requires.

    Args:
        policy: the policy.
        option: option with which the engine serves a diffusers pipeline instead; named in the error.

    Raises:
        CannotSteer: the policy steers only in attention, which the guard does not reach in the engine's own pipelines.
    """
    if in_attention(policy, shown=False):
        raise CannotSteer(
            "guidance mode 'attention' does not reach the engine's own pipelines",
            hint=f"Use guidance mode 'auto' or 'separate', or serve the model with {option}.",
        )


class Running:
    """One guarded request while it runs.

    Args:
        guard: the guard.
        stages: stages of the engine's pipeline.
        request: copy of the request as it arrived.
        server_args: the engine's arguments.

    Attributes:
        branches: noise predictions of the present step's guidance branches; with guidance, the last is unconditional.
    """

    def __init__(self, guard: Guard, stages: Stages, request: Any, server_args: Any) -> None:
        self.branches: list[Any] = []
        self._guard, self._stages, self._request, self._server_args = guard, stages, request, server_args
        self._generation: Generation | None = None
        self._branch: Branch | None = None
        self._batch: Any = None
        self._own: dict[str, Any] = {}
        self._levels: tuple[float, ...] = ()

    def predicted(self, arguments: dict[str, Any]) -> Any:
        """Predict and steer the noise of a step, and query the VLM about the predicted image if a query is due.

        Raises:
            CannotSteer: no negative prompt can take effect in the request.
            DnpGuardError: drawing the image again takes longer than the policy allows.
        """
        self._batch = arguments["batch"]
        generation = self._generation or self._begin(arguments)
        check_time(generation.driver)
        step = arguments["timestep_index"]
        generation.evaluating(self._levels[step])
        output = self._steered(generation, arguments)
        scheduler, timestep = self._batch.scheduler, self._batch.timesteps[step]
        try:
            denoised, sigma = prediction.predict(scheduler, output, timestep, arguments["latents"])
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            generation.driver.missed(None, error)
            return output
        generation.callback({"i": step, "sigma": self._levels[step] if sigma is None else sigma, "denoised": denoised})
        return output

    def finish(self, result: Any) -> Any:
        """Query the VLM about the finished image, and replace the image in the result if it must not be delivered.

        Raises:
            CannotSteer: the request did not run through the guarded denoising.
        """
        if self._generation is None or result.output is None:
            raise CannotSteer(
                "the request was drawn by stages that are not guarded, and is not delivered",
                hint="Leave out what makes the engine use others, such as progressive_mode.",
            )
        pictures = _pictures(result.output)
        (picture,) = self._generation.finish(lambda: pictures, partial(self._drawn_again, self._generation))
        if picture is not pictures[0]:
            result.output = to_tensor([picture]).to(result.output).reshape(result.output.shape)
        return result

    def abandon(self, reason: str) -> None:
        """Record that the request ended without a picture."""
        if self._generation is not None:
            self._generation.abandon(reason)

    def decode(self, latents: Tensor) -> list[Image]:
        """Decode latents to pictures, as the pipeline does."""
        return _pictures(self._stages.shown(self._batch, latents, self._server_args))

    def encode(self, texts: list[str]) -> Any:
        """Encode the first text as a negative; raise an error if it would not reach the denoiser."""
        mine = self._stages.encoded(self._request, texts[0], self._batch, self._server_args)
        if mine.keys() != self._own.keys() or not differing(mine, self._own):
            raise DnpGuardError("the negative does not reach the denoiser", hint="Report this.")
        return mine

    def _begin(self, arguments: dict[str, Any]) -> Generation:
        """Begin the generation, after checks such as whether encoding the prompt again gives the same result."""
        batch, branches = arguments["batch"], arguments["cfg_policy"].branches
        policy = self._guard.policy  # read once, because a reload may replace it while the prompt is encoded
        check_policy(policy)
        _check_step(arguments, self._stages.denoising)
        prediction.check(batch.scheduler)
        self._own = branches[0].kwargs
        if differing(self._stages.encoded(self._request, batch.prompt, batch, self._server_args), self._own):
            raise CannotSteer(
                "encoding the request's own prompt again gives the denoiser something else",
                hint="Keep the text encoder on the device, without offloading.",
            )
        if policy.asks_inputs and (batch.image_path or batch.condition_image is not None):
            raise CannotSteer(
                "the request brings pictures, which the engine's own stages do not show to the guard",
                hint="Serve the model with --backend diffusers, or leave `inputs` out of the policy.",
            )
        if policy.guidance.mode == "replace" and policy.mode != "shadow" and len(branches) == 1:
            raise CannotSteer("guidance mode 'replace' needs guidance", hint="Use guidance mode 'separate'.")
        self._levels = (*prediction.levels(batch.scheduler, range(len(batch.timesteps))), 0.0)
        run = {
            "seed": batch.seed,
            "scheduler": type(batch.scheduler).__name__,
            "steps": len(batch.timesteps),
            "guidance_scale": arguments["current_guidance_scale"],
            "size": f"{batch.width}x{batch.height}",
        }
        host = {"name": "sglang", "version": metadata.version("sglang"), "target": type(self._stages.pipeline).__name__}
        known = {key: value for key, value in run.items() if value is not None}
        request = Request(1, host, (batch.prompt,), known, draws_again=True)
        progress, negatives = Progress(self._levels), [batch.negative_prompt or ""]
        self._generation = Generation(
            self._guard, request, progress, self.encode, self.decode, negatives, policy=policy
        )
        self._branch = Branch(self._generation.guidance)
        return self._generation

    def _drawn_again(self, generation: Generation) -> list[Image]:
        """Draw the request again from its seed, steered from the first step on."""
        generation.begin_again(Progress(self._levels))
        self._branch = Branch(generation.guidance)
        return _pictures(self._stages.drawn(self._request, self._server_args).output)

    def _steered(self, generation: Generation, arguments: dict[str, Any]) -> Any:
        active = generation.held.active
        replaces = generation.guidance.mode == "replace"
        if active and replaces:
            arguments = {**arguments, "cfg_policy": _with(arguments["cfg_policy"], active[0].conditioning, alone=False)}
        self.branches.clear()
        output = self._stages.guided(arguments)
        if self._branch is None or replaces:
            return output
        due = self._branch.due(active)
        if not active:
            return output
        try:
            shape = arguments["server_args"].pipeline_config.slice_noise_pred
            e_u = shape(self.branches[-1], arguments["latents"])
            for index, term in due:
                alone = {**arguments, "cfg_policy": _with(arguments["cfg_policy"], term.conditioning, alone=True)}
                self._branch.keep([(index, term)], self._stages.guided(alone), e_u)
            return output + self._branch.delta(active).to(output)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            generation.driver.missed(None, error)
            return output


def _check_step(arguments: dict[str, Any], denoising: Any) -> None:
    """Check that every step of a request runs the whole model once per branch, with classifier-free guidance or none.

    Raises:
        CannotSteer: steps leave out a guidance branch or parts of the model, are guided in another way, or evaluate the
            model more than once.
    """
    policy, gate = arguments["cfg_policy"], arguments["cfg_gate_state"]
    if type(policy).__name__ != _POLICY or [branch.is_conditional for branch in policy.branches] not in _BRANCHES:
        raise CannotSteer(f"the guidance of {type(policy).__name__} is not known", hint="Use --backend diffusers.")
    if gate is not None and gate["active"]:
        raise CannotSteer("cfg_gate_step leaves out the unconditional branch", hint="Leave it out.")
    if denoising._cache_dit_enabled:  # noqa: SLF001 (the engine has no public name for it)
        raise CannotSteer("cache-dit skips parts of steps", hint="Serve without cache-dit.")
    if arguments["batch"].scheduler.order != 1:
        raise CannotSteer("a scheduler of higher order is not guarded here", hint="Use one of order 1.")


def _with(policy: Any, conditioning: dict[str, Any], *, alone: bool) -> Any:
    """Copy the engine's guidance policy with a negative as its last branch, or as its only branch."""
    negative = replace(policy.branches[-1], kwargs=conditioning)
    return replace(policy, branches=[negative] if alone else [*policy.branches[:-1], negative])


def _pictures(frames: Tensor) -> list[Image]:
    """Convert decoded frames within 0…1, [B, 3, h, w] or [B, 3, 1, h, w], to pictures."""
    if frames.ndim == _VIDEO and frames.shape[2] == 1:
        frames = frames[:, :, 0]
    if frames.ndim != _IMAGE or frames.shape[1] != len("RGB"):
        raise DnpGuardError(f"an image of shape {list(frames.shape)} cannot be shown", hint="Report this.")
    check_finite(frames)
    return to_pictures(frames.float())
