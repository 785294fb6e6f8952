"""One request of vLLM-Omni's own pipelines, run again on copies: to encode a negative, show a prediction, or redraw.

The pipeline is asked, as everywhere: with another prompt, it encodes that prompt as it encodes the request's own, up to
its first prediction. With predicted latents in place of its model, it shows them as it shows the finished image.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.hosts.diffusers.asking.arguments import differing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from dnp_guard.hosts.engines.ranks import Ranks

_IMAGE = 4
"""Number of dimensions of a batch of images."""
_QUIET = {"disable": True}
"""Setting of the engine's progress bars."""


class FirstPrediction(Exception):
    """The first prediction of a rehearsal, with the arguments of its conditional branch."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__("the first prediction")
        self.arguments = arguments


@dataclass(slots=True)
class PipelineMethod:
    """The engine's own methods of a pipeline, from before they were replaced.

    Attributes:
        pipeline: the pipeline.
        forward: runs a batch of requests.
        shown: latents that stand in for all steps; None while the model predicts.
        encoding: whether the run ends at its first prediction.
    """

    pipeline: Any
    forward: Callable[[Any], Any]
    shown: Tensor | None = None
    encoding: bool = False

    @contextmanager
    def rehearsing(self, *, shown: Tensor | None = None) -> Iterator[None]:
        """Leave the pipeline as it was after a run in the midst of another; its scheduler is copied.

        Args:
            shown: latents that stand in for all steps; without them the run ends at its first prediction.
        """
        before = dict(vars(self.pipeline))
        self.pipeline.scheduler = copy.deepcopy(self.pipeline.scheduler)
        self.pipeline._progress_bar_config = _QUIET  # noqa: SLF001 (the engine's mixin has a setter, not all have it)
        self.shown, self.encoding = shown, shown is None
        try:
            yield
        finally:
            self.shown, self.encoding = None, False
            vars(self.pipeline).clear()
            vars(self.pipeline).update(before)


class Rehearsal:
    """A batch of requests as it arrived, which its pipeline can run again.

    Args:
        method: methods of the pipeline.
        ranks: ranks that draw together.
        batch: copy of the batch, as :func:`fresh` makes it.

    Attributes:
        batch: the batch.
        own: arguments of the first prediction under the request's own prompts, its latents among them.
        arguments: arguments of the prediction of the present step.
    """

    def __init__(self, method: PipelineMethod, ranks: Ranks, batch: Any) -> None:
        self.batch = batch
        self.own: dict[str, Any] = {}
        self.arguments: dict[str, Any] = {}
        self._method, self._ranks = method, ranks
        self._encoded: dict[str, dict[str, Any]] = {}

    def proves(self) -> bool:
        """Return whether encoding the request's own prompts again gives the model the same to the bit."""
        result: bool = self._ranks.run(self, "prove")
        return result

    def encoded(self, text: str) -> str:
        """Encode a negative in place of every prompt, and return it as the name of its conditioning.

        Raises:
            DnpGuardError: it does not reach the model.
        """
        self._ranks.run(self, "encode", text)
        return text

    def evaluated(self, text: str) -> Tensor:
        """Predict the noise of the present step under an encoded negative, [B, ...]."""
        result: Tensor = self._ranks.run(self, "evaluate", text)
        return result

    def decoded(self, latents: Tensor) -> Tensor:
        """Decode latents as the pipeline would, to pixels of about -1…1, [B, 3, h, w]."""
        result: Tensor = self._ranks.run(self, "decode", latents)
        return result

    def drawn(self) -> Tensor:
        """Draw the batch again from its seeds, to pixels of about -1…1, [B, 3, h, w]."""
        result: Tensor = self._ranks.run(self, "draw")
        return result

    def prove(self) -> bool:
        """Run the part of one rank in :meth:`proves`; the same for the methods below."""
        self.own = self.arguments["positive_kwargs"]
        return not differing(self._first(fresh(self.batch)), self.own)

    def encode(self, text: str) -> None:
        """Keep the arguments of the model that a negative changes."""
        reached = self._first(fresh(self.batch, text))
        changed = {path[0] for path in differing(reached, self.own)}
        if not changed or not changed <= reached.keys() or reached.keys() != self.own.keys():
            raise DnpGuardError("the negative does not reach the model", hint="Report this.")
        self._encoded[text] = {name: reached[name] for name in changed}

    def under(self, text: str) -> dict[str, Any]:
        """Return the arguments of a branch of the present step that is conditioned by an encoded negative.

        Raises:
            DnpGuardError: the pipeline has changed its conditioning since its first step.
        """
        present, conditioning = self.arguments["positive_kwargs"], self._encoded[text]
        if any(differing(present[name], self.own[name]) for name in conditioning):
            raise DnpGuardError("the pipeline conditions its steps differently", hint="Report this.")
        return {**present, **conditioning}

    def evaluate(self, text: str) -> Tensor:
        """Predict under an encoded negative."""
        output = self._method.pipeline.predict_noise(**self.under(text))
        if not isinstance(output, torch.Tensor):
            output = output[0]
        length = self.arguments["output_slice"]
        return output if length is None else output[:, :length]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents."""
        with self._method.rehearsing(shown=latents):
            return frames(self._method.forward(fresh(self.batch)))

    def draw(self) -> Tensor:
        """Draw again."""
        return frames(self._method.forward(fresh(self.batch)))

    def _first(self, batch: Any) -> dict[str, Any]:
        """Return the arguments of the first prediction of a batch."""
        with self._method.rehearsing():
            try:
                self._method.forward(batch)
            except FirstPrediction as reached:
                return reached.arguments
        raise CannotSteer("the pipeline predicts nothing by the engine's mixin", hint="Report this.")


def fresh(batch: Any, text: str | None = None) -> Any:
    """Copy a batch so that a pipeline may draw from its generators and write into its requests.

    Args:
        batch: a batch of the engine.
        text: prompt in place of every request's own.
    """
    copied = copy.copy(batch)
    copied.requests = [_request(request, text) for request in batch.requests]
    return copied


def _request(request: Any, text: str | None) -> Any:
    copied, sampling = copy.copy(request), copy.copy(request.sampling_params)
    if text is not None:
        copied.prompt = text if isinstance(request.prompt, str) else {**request.prompt, "prompt": text}
    sampling.generator = _again(sampling.generator)
    sampling.extra_args = dict(sampling.extra_args or {})
    copied.sampling_params = sampling
    return copied


def _again(generator: Any) -> Any:
    """Copy a generator, or a list of them, in its present state."""
    if isinstance(generator, list):
        return [_again(one) for one in generator]
    return None if generator is None else torch.Generator(generator.device).set_state(generator.get_state())


def outputs(result: Any) -> list[Any]:
    """Return the outputs of a run, one per request; pipelines that draw one request return it alone."""
    return result if isinstance(result, list) else [result]


def frames(result: Any) -> Tensor:
    """Return the decoded images of a run, [B, 3, h, w].

    Raises:
        DnpGuardError: it has others.
    """
    found = [output.output for output in outputs(result)]
    if not all(
        isinstance(made, torch.Tensor) and made.ndim == _IMAGE and made.shape[1] == len("RGB") for made in found
    ):
        raise DnpGuardError("the pipeline's output is no batch of images", hint="Report this.")
    return torch.cat(found)
