"""Turn a call's predictions into pictures, by the code that the pipeline itself runs after its last step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking.replay import End, replay
from dnp_guard.hosts.diffusers.showing.decoding import channels, decoder
from dnp_guard.hosts.diffusers.showing.frames import of_frames
from dnp_guard.hosts.diffusers.showing.output import Output
from dnp_guard.hosts.diffusers.showing.packing import packed
from dnp_guard.preview import autoencoder
from dnp_guard.preview.autoencoder import decoded, encoded, scaled, unscaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.recording import Recording
    from dnp_guard.hosts.diffusers.showing.decoding import Decode

_LATENTS = 4
_OF_VIDEOS = 5
_COLOURS = 3


def _no_pictures(result: Any) -> CannotSteer:
    what = f"a {type(result).__name__}" if result is not None else "something else"
    return CannotSteer(f"it makes no images: it ends with {what}", hint="Guard a pipeline that ends with pictures.")


class Shows:
    """Decodes the predictions of one call.

    Args:
        recording: recording of the call.
        evaluations: evaluations of each denoiser in the call's first step.
        scheduler: name of the scheduler that steps.
        images: number of images in the batch.
        method: the policy's ``preview.method``.
        tiny: a tiny autoencoder that the user passed, or None.
    """

    def __init__(
        self,
        recording: Recording,
        evaluations: Mapping[str, Sequence[Evaluation]],
        scheduler: str,
        images: int,
        method: str,
        tiny: Any,
    ) -> None:
        self.images = images
        self._recording = recording
        self._evaluations = evaluations
        self._scheduler = scheduler
        self._method = method
        self._tiny = tiny
        self._decode: dict[str, Decode] = {}
        self._plain = ""

    def pictures(self, x0: Tensor) -> list[Image]:
        """Decode a prediction to RGB as the policy's ``preview`` requires: one picture, or some frames, per image."""
        end = self._end(x0)
        if end.latents is None:
            return Output(end.result, "pil", self).pictures()
        if end.autoencoder not in self._decode:
            self._decode[end.autoencoder] = decoder(self._recording.pipe, self._vae(end), self._method, self._tiny)
        return self._decode[end.autoencoder](of_frames(end.latents, self.images))

    def check(self, x0: Tensor) -> None:
        """Check that the call ends with pictures, each made from its own latents only.

        Raises:
            CannotSteer: the call ends with something else, or the latents of one image affect the picture of another.
        """
        end = self._end(x0)
        if end.latents is not None:
            if self._unscales(x0, end) and self._unscales(other := 1 - 8 * x0, self._end(other)):
                self._plain = end.autoencoder
            else:
                self._check_apart(x0, end.latents)
            made = getattr(getattr(self._vae(end), "config", None), "out_channels", _COLOURS)
            if made < _COLOURS:
                raise _no_pictures(end.result)
            return
        try:
            Output(end.result, "pil", self).pictures()
        except Exception as error:
            raise _no_pictures(end.result) from error

    def _unscales(self, x0: Tensor, end: End) -> bool:
        """Return whether the pipeline only undoes the autoencoder's scaling before it decodes, bit for bit."""
        if end.latents is None or x0.ndim != _LATENTS or (end.latents.shape, end.latents.dtype) != (x0.shape, x0.dtype):
            return False
        return torch.equal(unscaled(self._vae(end), x0), end.latents)

    def _check_apart(self, x0: Tensor, latents: Tensor) -> None:
        """Check that the last image's latents do not affect the other images, as a joint normalisation would.

        Raises:
            CannotSteer: the last image's latents affect the other images.
        """
        if self.images == 1:
            return
        moved = x0.clone()
        moved[-1] = 1 - moved[-1]
        others = slice(-len(latents) // self.images)
        ends = [self._end(sample).latents for sample in (moved, x0)]
        unmoved, again = (end is not None and torch.equal(end[others], latents[others]) for end in ends)
        if unmoved or not again:  # an end that draws noise proves nothing
            return
        raise CannotSteer(
            "its own end mixes the images of a batch: one that is steered would change the others",
            hint="Generate one image per call.",
        )

    def scaled(self, x0: Tensor) -> Tensor:
        """Return a prediction as latents of pictures to query, [N, C, H, W], in the sampler's scale, but not packed."""
        end = self._end(x0)
        if end.latents is None:
            raise CannotSteer("nothing decodes its latents", hint="Leave queries.skip_probe out.")
        return scaled(self._vae(end), of_frames(end.latents, self.images))

    def encoded(self, picture: Image, like: Tensor) -> Tensor:
        """Encode a picture as latents in the sampler's form, [B, ...], the same for every image of the batch."""
        end = self._end(like)
        if end.latents is None:
            raise CannotSteer("nothing decodes its latents", hint="Ask for pictures.")
        vae, latents = self._vae(end), end.latents
        height, width = latents.shape[-2:]
        factor = decoded(vae, of_frames(latents, self.images)[:1, :, :2, :2]).shape[-1] // 2
        pixels = autoencoder.to_tensor([picture.resize((width * factor, height * factor))]) * 2 - 1
        made = encoded(vae, pixels.to(latents.device))
        made = (made.unsqueeze(2) if latents.ndim == _OF_VIDEOS else made).expand_as(latents)
        return packed(self._unscaled, like, made.float())

    def channels(self, output: Tensor) -> int:
        """Return the dimension of a prediction that holds channels: 2 for videos with frames before channels, or 1."""
        known = channels(getattr(self._recording.pipe, "vae", None))
        frames_first = output.ndim == _OF_VIDEOS and known not in {None, output.shape[1]} and output.shape[2] == known
        return 2 if frames_first else 1

    def ended(self) -> list[Image]:
        """Return an empty list, because a replayed call always runs to its end."""
        return []

    decoded = pictures

    def _unscaled(self, x0: Tensor) -> Tensor:
        latents = self._end(x0).latents
        if latents is None:
            raise CannotSteer("nothing decodes its latents", hint="Ask for pictures.")
        return latents.float()

    def _end(self, x0: Tensor) -> End:
        if self._plain:  # proven before the first step, so the call need not be repeated for each prediction
            return End(self._plain, unscaled(self._recording.parts[self._plain], x0))
        end = replay(self._recording, self._evaluations, self._scheduler, x0, self.images)
        if end.latents is None and end.result is None:
            raise CannotSteer("nothing decodes its latents", hint="Guard a pipeline that ends with pictures.")
        return end

    def _vae(self, end: End) -> Any:
        return self._recording.parts[end.autoencoder]
