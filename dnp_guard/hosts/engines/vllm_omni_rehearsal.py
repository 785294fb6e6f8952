"""Run a batch of vLLM-Omni's own pipelines again, on a copy: to encode a negative, decode a prediction, or redraw.

The pipeline itself does the work, so the guard need not know how. Run with a negative in place of the prompt, up to the
first prediction, it encodes the negative as it encodes a prompt. Run with predicted latents in place of its model's
output, it decodes them as it decodes the finished image.
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
    """Ends a rehearsal (a run on a copy of the batch) at its first prediction, and carries that prediction's arguments.

    These are the arguments of the conditional branch.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__("the first prediction")
        self.arguments = arguments


@dataclass(slots=True)
class PipelineMethod:
    """A pipeline with its own ``forward``, from before the guard replaced it.

    Attributes:
        pipeline: the pipeline.
        forward: runs a batch of requests.
        shown: latents to return in place of every prediction and step; None while the model predicts.
        encoding: whether the run ends at its first prediction.
    """

    pipeline: Any
    forward: Callable[[Any], Any]
    shown: Tensor | None = None
    encoding: bool = False

    @contextmanager
    def rehearsing(self, *, shown: Tensor | None = None) -> Iterator[None]:
        """Let the pipeline run in the midst of another run; the ``with`` block restores its attributes at the end.

        Args:
            shown: latents to return in place of every prediction; without them the run ends at its first prediction.
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
        method: the pipeline, with its own ``forward``.
        ranks: the ranks (processes) that draw together.
        batch: copy of the batch, as :func:`fresh` makes it.

    Attributes:
        batch: the batch.
        own: arguments of the first prediction with the requests' own prompts, including the latents.
        arguments: arguments of the prediction of the present step.
    """

    def __init__(self, method: PipelineMethod, ranks: Ranks, batch: Any) -> None:
        self.batch = batch
        self.own: dict[str, Any] = {}
        self.arguments: dict[str, Any] = {}
        self._method, self._ranks = method, ranks
        self._encoded: dict[str, dict[str, Any]] = {}

    def proves(self) -> bool:
        """Return whether encoding the requests' own prompts again gives the model exactly the same arguments."""
        result: bool = self._ranks.run(self, "prove")
        return result

    def encoded(self, text: str) -> str:
        """Encode a negative prompt in place of every prompt; return its text, by which the encoding is found again.

        Raises:
            DnpGuardError: the negative does not reach the model.
        """
        self._ranks.run(self, "encode", text)
        return text

    def evaluated(self, text: str) -> Tensor:
        """Predict the noise of the present step, [B, ...], with an encoded negative in place of the prompts."""
        result: Tensor = self._ranks.run(self, "evaluate", text)
        return result

    def decoded(self, latents: Tensor) -> Tensor:
        """Decode latents as the pipeline does, to pixels of about -1…1, [B, 3, h, w]."""
        result: Tensor = self._ranks.run(self, "decode", latents)
        return result

    def drawn(self) -> Tensor:
        """Draw the batch again from its seeds; return pixels of about -1…1, [B, 3, h, w]."""
        result: Tensor = self._ranks.run(self, "draw")
        return result

    def prove(self) -> bool:
        """Do this rank's part of :meth:`proves`."""
        self.own = self.arguments["positive_kwargs"]
        return not differing(self._first(fresh(self.batch)), self.own)

    def encode(self, text: str) -> None:
        """Do this rank's part of :meth:`encoded`: keep the model arguments that a negative changes."""
        reached = self._first(fresh(self.batch, text))
        changed = {path[0] for path in differing(reached, self.own)}
        if not changed or not changed <= reached.keys() or reached.keys() != self.own.keys():
            raise DnpGuardError("the negative does not reach the model", hint="Report this.")
        self._encoded[text] = {name: reached[name] for name in changed}

    def under(self, text: str) -> dict[str, Any]:
        """Return the model arguments of the present step, with an encoded negative in place of the prompts.

        Raises:
            DnpGuardError: the pipeline has changed its conditioning since its first step.
        """
        present, conditioning = self.arguments["positive_kwargs"], self._encoded[text]
        if any(differing(present[name], self.own[name]) for name in conditioning):
            raise DnpGuardError("the pipeline conditions its steps differently", hint="Report this.")
        return {**present, **conditioning}

    def evaluate(self, text: str) -> Tensor:
        """Do this rank's part of :meth:`evaluated`."""
        output = self._method.pipeline.predict_noise(**self.under(text))
        if not isinstance(output, torch.Tensor):
            output = output[0]
        length = self.arguments["output_slice"]
        return output if length is None else output[:, :length]

    def decode(self, latents: Tensor) -> Tensor:
        """Do this rank's part of :meth:`decoded`."""
        with self._method.rehearsing(shown=latents):
            return frames(self._method.forward(fresh(self.batch)))

    def draw(self) -> Tensor:
        """Do this rank's part of :meth:`drawn`."""
        return frames(self._method.forward(fresh(self.batch)))

    def _first(self, batch: Any) -> dict[str, Any]:
        """Run a batch up to its first prediction, and return the arguments of that prediction."""
        with self._method.rehearsing():
            try:
                self._method.forward(batch)
            except FirstPrediction as reached:
                return reached.arguments
        raise CannotSteer("the pipeline predicts nothing by the engine's mixin", hint="Report this.")


def fresh(batch: Any, text: str | None = None) -> Any:
    """Copy a batch, so that a run of the copy leaves the random generators and requests of the original unchanged.

    Args:
        batch: a batch of the engine.
        text: prompt in place of every request's own; None to keep these.
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
    """Copy a random generator, or a list of them, in its present state."""
    if isinstance(generator, list):
        return [_again(one) for one in generator]
    return None if generator is None else torch.Generator(generator.device).set_state(generator.get_state())


def outputs(result: Any) -> list[Any]:
    """Return the outputs of a run as a list, one per request; some pipelines return a single output without a list."""
    return result if isinstance(result, list) else [result]


def frames(result: Any) -> Tensor:
    """Return the decoded images of a run, [B, 3, h, w].

    Raises:
        DnpGuardError: an output is not a batch of RGB images.
    """
    found = [output.output for output in outputs(result)]
    if not all(
        isinstance(made, torch.Tensor) and made.ndim == _IMAGE and made.shape[1] == len("RGB") for made in found
    ):
        raise DnpGuardError("the pipeline's output is no batch of images", hint="Report this.")
    return torch.cat(found)
