"""Steer a model that applies classifier-free guidance itself and returns the denoised image, as k-diffusion's do.

The model's result D(x; sigma) is x̂0. It is linear in the noise that the network predicts, D = x - sigma eps, so the
equations of ``steering.guidance`` hold for it unchanged, with D in place of the guided noise prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.kdiffusion.attending import parts, rows_of
from dnp_guard.hosts.kdiffusion.batch import alike, joined, replaced, rows
from dnp_guard.steering.attention import NotReached
from dnp_guard.steering.branch import Branch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from dnp_guard.hosts.kdiffusion.generation import Generation


class Guided:
    """A steered model that samplers call in place of the original one, as ``model(x, sigma, **extra_args)``.

    While no image is steered, a call returns the original model's result itself. Other attributes are the original's.

    Args:
        model: the original model, called as ``model(x, sigma, cond=…, uncond=…, cond_scale=…)``, or without the last
            two arguments if it has no guidance.
        generation: the guarded run, which holds the negatives that steer.
        denoise: the model without guidance, ``denoise(x, sigma, cond=…)``; None to evaluate ``model`` with
            ``cond_scale=0`` instead.
    """

    def __init__(self, model: Any, generation: Generation, denoise: Callable[..., Tensor] | None = None) -> None:
        self._model = model
        self._generation = generation
        self._denoise = denoise
        self._branch = Branch(generation.guidance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        """Return the steered denoised images of noisy latents x [B, ...] at noise levels sigma [B]."""
        begins = self._generation.evaluating(float(sigma.flatten()[0]))
        active = self._generation.held.active
        if not active:
            self._branch.due(active)  # drop earlier evaluations: they must not be used again after a pause
            return self._model(x, sigma, **extra)
        if self._generation.guidance.mode == "replace":
            return self._model(x, sigma, **self._replaced(extra, x.shape[0]))
        denoised = self._attended(x, sigma, extra)
        try:
            return self._pushed(denoised, x, sigma, extra, begins=begins)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._generation.driver.missed(None, error)
            return denoised

    def _attended(self, x: Tensor, sigma: Tensor, extra: dict[str, Any]) -> Tensor:
        """Evaluate the model, steered in its attention if that can be reached."""
        layers = self._generation.attention
        if layers is None:
            return self._model(x, sigma, **extra)
        try:
            due = parts(self._generation.held.active)
        except NotReached:
            self._generation.attention_lost()
            return self._model(x, sigma, **extra)
        if not due:
            return self._model(x, sigma, **extra)
        with layers.steered(due, rows_of(extra["cond"])) as steering:
            denoised = self._model(x, sigma, **extra)
        if steering.failure is not None:
            self._generation.attention_lost()
        return denoised

    def _replaced(self, extra: dict[str, Any], images: int) -> dict[str, Any]:
        active = self._generation.held.active
        try:
            negatives = joined([term.conditioning for term in active.values()])
            return {**extra, "uncond": replaced(extra["uncond"], list(active), negatives, images)}
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._generation.driver.missed(None, error)
            return extra

    def _pushed(self, denoised: Tensor, x: Tensor, sigma: Tensor, extra: dict[str, Any], *, begins: bool) -> Tensor:
        # An image that is steered in attention alone has no conditioning of its own to evaluate.
        active = {image: term for image, term in self._generation.held.active.items() if term.conditioning is not None}
        due = self._branch.due(active, begins=begins)
        if not active:
            return denoised
        d_u = denoised
        if due and extra.get("uncond") is not None:
            concerned = list(active)
            d_u = denoised.clone()
            mine = rows(extra["uncond"], concerned, x.shape[0])
            d_u[concerned] = self._alone(x, sigma, extra, concerned, mine).to(d_u)
        if due:
            given = [term.conditioning for _, term in due]
            for places in alike(given):
                concerned = [due[place][0] for place in places]
                d_n = self._alone(x, sigma, extra, concerned, joined([given[place] for place in places]))
                self._branch.keep([due[place] for place in places], d_n.to(d_u), d_u)
        pushed = denoised.clone()
        pushed[list(active)] += self._branch.delta(active).to(denoised)
        return pushed

    def _alone(
        self, x: Tensor, sigma: Tensor, extra: dict[str, Any], concerned: Sequence[int], conditioning: Any
    ) -> Tensor:
        """Return the prediction without guidance for some images, each with its entry of the conditioning."""
        index = list(concerned)
        if self._denoise is not None:
            return self._denoise(x[index], sigma[index], cond=conditioning)
        slots = {"uncond": conditioning, "cond_scale": 0.0} if "uncond" in extra else {"cond": conditioning}
        return self._model(x[index], sigma[index], **{**rows(extra, index, x.shape[0]), **slots})
