"""Guard one batch of requests in vLLM-Omni's own pipelines: its steps, its negatives, and its finished images."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.generation.redrawing import check_time
from dnp_guard.generation.state import Request
from dnp_guard.hosts.diffusers import prediction
from dnp_guard.hosts.engines.sglang_request import check_policy
from dnp_guard.hosts.engines.vllm_omni_rehearsal import frames
from dnp_guard.hosts.kdiffusion.generation import Generation
from dnp_guard.hosts.kdiffusion.progress import Progress
from dnp_guard.preview.autoencoder import check_finite, to_pictures
from dnp_guard.steering.branch import Branch

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.vllm_omni_rehearsal import Rehearsal

DIFFUSERS = "--diffusion-load-format diffusers"
"""Option with which the engine serves a diffusers pipeline."""


def check_batch(batch: Any) -> None:
    """Check that no request of a batch bypasses the guard.

    Raises:
        CannotSteer: a request has embeddings in place of a text prompt, or asks for latents or trajectories.
    """
    for request in batch.requests:
        sampling, prompt = request.sampling_params, request.prompt
        given = prompt if isinstance(prompt, dict) else {"prompt": prompt}
        more = {**given, **(given.get("additional_information") or {})}
        if not isinstance(given.get("prompt"), str) or any("embeds" in name for name in more):
            raise CannotSteer("a guarded request needs its prompt as text", hint="Leave out embeddings.")
        if sampling.return_trajectory_latents or sampling.return_trajectory_decoded or sampling.output_type == "latent":
            raise CannotSteer("latents and trajectories are delivered without a look", hint="Ask for images.")


class RunningBatch:
    """One guarded batch while it runs. Only the first rank (process) uses it, because that rank decides for all.

    Args:
        guard: the guard.
        rehearsal: a copy of the batch that can run again, to encode negatives, decode latents, or redraw.
        pipeline: the engine's pipeline.
    """

    def __init__(self, guard: Guard, rehearsal: Rehearsal, pipeline: Any) -> None:
        self._guard, self._rehearsal, self._pipeline = guard, rehearsal, pipeline
        self._generation: Generation | None = None
        self._branch: Branch | None = None
        self._levels: tuple[float, ...] = ()
        self._step = 0

    def begin(self) -> str | None:
        """Begin a step, and return the negative that replaces the user's own in it; None if none does.

        Raises:
            CannotSteer: no negative prompt can take effect in the batch.
            DnpGuardError: drawing the batch again takes longer than the policy allows.
        """
        generation = self._generation or self._started()
        check_time(generation.driver)
        generation.evaluating(self._levels[self._step])
        active = generation.held.active
        return active[0].text if active and generation.guidance.mode == "replace" else None

    def steered(self, output: Tensor, unconditional: Tensor) -> Tensor | None:
        """Return the guided prediction of the present step, steered by the active negatives; None to leave it as it is.

        Args:
            output: the guided prediction, [B, ...].
            unconditional: the unconditional prediction; without classifier-free guidance, the conditional one.
        """
        generation, branch = self._generation, self._branch
        if generation is None or branch is None or generation.guidance.mode == "replace":
            return None
        active = generation.held.active
        due = branch.due(active)
        if not active:
            return None
        try:
            for text in {term.text for _, term in due}:
                same = [(index, term) for index, term in due if term.text == text]
                e_n = self._rehearsal.evaluated(text)
                branch.keep(same, e_n[[index for index, _ in same]], unconditional)
            pushed = output.clone()
            pushed[list(active)] += branch.delta(active).to(output)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            generation.driver.missed(None, error)
            return None
        return pushed

    def look(self, output: Tensor, timestep: Any, latents: Tensor) -> None:
        """Query the VLM about the image that a step predicts, if a query is due; call it before the scheduler's step.

        Raises:
            CannotSteer: the pipeline did not predict this step through the guard.
        """
        generation = self._generation
        if generation is None:
            raise CannotSteer("the pipeline steps without a prediction by the engine's mixin", hint="Report this.")
        step, self._step = self._step, self._step + 1
        try:
            denoised, sigma = prediction.predict(self._pipeline.scheduler, output, timestep, latents)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            generation.driver.missed(None, error)
            return
        generation.callback({"i": step, "sigma": self._levels[step] if sigma is None else sigma, "denoised": denoised})

    def finish(self, result: Any) -> dict[int, Image]:
        """Query the VLM about the finished images, and return the pictures that replace some of them, by index.

        Raises:
            CannotSteer: the batch did not run through the guarded mixin.
        """
        if self._generation is None:
            raise CannotSteer(
                "the batch was drawn without the engine's mixin, and is not delivered", hint="Report this."
            )
        pictures = _pictures(frames(result))
        made = self._generation.finish(lambda: pictures, self._drawn_again)
        return {index: new for index, (new, old) in enumerate(zip(made, pictures, strict=True)) if new is not old}

    def abandon(self, reason: str) -> None:
        """Record that the batch ended without images."""
        if self._generation is not None:
            self._generation.abandon(reason)

    def _started(self) -> Generation:
        """Begin the generation, after checks such as whether encoding the prompts again gives the same result."""
        policy, scheduler, arguments = self._guard.policy, self._pipeline.scheduler, self._rehearsal.arguments
        check_policy(policy, DIFFUSERS)  # a reload or a request may have changed it since the model was loaded
        prediction.check(scheduler)
        if scheduler.order != 1:
            raise CannotSteer("a scheduler of higher order is not guarded here", hint="Use one of order 1.")
        if not self._rehearsal.proves():
            raise CannotSteer(
                "encoding the request's own prompt again gives the model something else", hint="Report this."
            )
        requests = self._rehearsal.batch.requests
        texts = [one.prompt if isinstance(one.prompt, str) else one.prompt["prompt"] for one in requests]
        users = ["" if isinstance(one.prompt, str) else one.prompt.get("negative_prompt") or "" for one in requests]
        per = max(1, requests[0].sampling_params.num_outputs_per_prompt)
        prompts, negatives = _each(texts, per), _each(users, per)
        if policy.guidance.mode == "replace" and policy.mode != "shadow":
            _check_replaced(arguments, len(prompts))
        self._levels = (*prediction.levels(scheduler, range(len(scheduler.timesteps))), 0.0)
        request = Request(len(prompts), self._host(), tuple(prompts), self._run(), draws_again=True)
        progress = Progress(self._levels)
        self._generation = Generation(
            self._guard, request, progress, self._encode, self._decode, negatives, policy=policy
        )
        self._branch = Branch(self._generation.guidance)
        return self._generation

    def _host(self) -> dict[str, str]:
        name = type(self._pipeline).__name__
        return {"name": "vllm-omni", "version": metadata.version("vllm-omni"), "target": name}

    def _run(self) -> dict[str, Any]:
        sampling = self._rehearsal.batch.requests[0].sampling_params
        run = {
            "seed": sampling.seed,
            "scheduler": type(self._pipeline.scheduler).__name__,
            "steps": len(self._levels) - 1,
            "guidance_scale": self._rehearsal.arguments["true_cfg_scale"],
            "size": f"{sampling.width}x{sampling.height}" if sampling.width and sampling.height else None,
        }
        return {key: value for key, value in run.items() if value is not None}

    def _encode(self, texts: list[str]) -> str:
        return self._rehearsal.encoded(texts[0])

    def _decode(self, latents: Tensor) -> list[Image]:
        return _pictures(self._rehearsal.decoded(latents))

    def _drawn_again(self) -> list[Image]:
        """Draw the batch again from its seeds, steered from the first step on."""
        if self._generation is None:
            raise CannotSteer("nothing was drawn", hint="Report this.")
        self._generation.begin_again(Progress(self._levels))
        self._branch, self._step = Branch(self._generation.guidance), 0
        return _pictures(self._rehearsal.drawn())


def _check_replaced(arguments: dict[str, Any], images: int) -> None:
    """Check that a negative can replace the user's own negative prompt, as guidance mode ``replace`` requires.

    Raises:
        CannotSteer: there is no classifier-free guidance, or there are several images, which would share the negative.
    """
    if not arguments["do_true_cfg"]:
        raise CannotSteer("guidance mode 'replace' needs guidance", hint="Use guidance mode 'separate'.")
    if images > 1:
        raise CannotSteer("guidance mode 'replace' is for one image at a time", hint="Use guidance mode 'separate'.")


def _each(texts: list[str], per: int) -> list[str]:
    """Repeat every text ``per`` times, so that there is one text per image."""
    return [text for text in texts for _ in range(per)]


def _pictures(pixels: Tensor) -> list[Image]:
    """Convert pixels of about -1…1, [B, 3, h, w], to pictures."""
    check_finite(pixels)
    return to_pictures(pixels.float() / 2 + 0.5)
