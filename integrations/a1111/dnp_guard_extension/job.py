"""Guard one job of the web UI: connect its hooks with looks at predictions, steering and the final look.

The host logs an exception of a hook and goes on as if nothing had happened. So every hook here catches its own
exceptions and notes them as failures. If the images must be withheld, it ends the job with the only exception that the
host lets through.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from . import host, pictures
from .attending import reached
from .batch import Batch, Withheld
from .client import Client
from .settings import DECODERS, BadSettings, Settings
from .steering import Steering

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

log = logging.getLogger("dnp_guard")


class Job:
    """The guard of one job, which the host calls a processing object; it guards batch after batch.

    Args:
        settings: settings of the job, or a :class:`BadSettings` error, which makes it withhold everything.
        client: client of the guard service; None with bad settings.
        counts: number of images of all jobs per outcome, to be increased.
    """

    def __init__(self, settings: Settings | BadSettings, client: Client | None, counts: Counter[str]) -> None:
        self._unusable = settings if isinstance(settings, BadSettings) else None
        self._settings = settings if isinstance(settings, Settings) else Settings()
        self._client = client or Client(self._settings.url, None)
        self._counts = counts
        self.batch: Batch | None = None
        self._said: dict[int, dict[str, str | None]] = {}
        self._first, self._frames = 0, 1
        self._sampler: Any = None
        self._shown: bool | None = None
        self._steering: Steering | None = None
        self._sigma = 0.0
        self._before_pass = self._done = 0
        self._expected: int | None = None
        self._seen: Any = None
        self._redraw: Callable[[], Any] | None = None

    @property
    def user_previews(self) -> str:
        """How users may see the preview of all images together: ``withhold``, ``blur`` or ``allow``, the strictest."""
        allowed = self.batch.user_previews if self.batch is not None else ("withhold",)
        return next(word for word in ("withhold", "blur", "allow") if word in allowed)

    @property
    def mode(self) -> str:
        """``enforce`` or ``shadow``: the mode of the policy in force; empty if unknown."""
        return self.batch.session.mode if self.batch is not None and self.batch.session is not None else ""

    @property
    def request(self) -> str:
        """Id under which the audit records of the latest batch are filed; empty without records."""
        return self.batch.request if self.batch is not None else ""

    def batch_begins(self, p: Any, prompts: Sequence[str], first: int) -> None:
        """Begin a batch; ``first`` is the index of its first image in the job."""
        self.ends()
        self.batch = None  # the verdicts of the earlier batch are not about this one
        self._first, self._frames, self._before_pass, self._done = first, 1, 0, 0
        self._expected = self._seen = None
        self._redraw = host.redraw(p)
        self._shown = reached()
        able: dict[str, Any] = {"again": self._redraw is not None, "attention": self._shown}
        own = host.brought(p)
        able["brought"] = (lambda: [[picture] for picture in own]) if own else None
        self.batch = Batch(self._client, self._settings, prompts, host.about(p), **able)
        if self._unusable is not None:
            self.batch.failed(self._unusable)

    def pass_begins(self, sampler: Any) -> None:
        """Begin a sampling pass: the ordinary one, or the second one of a hires fix."""
        if self.batch is None:
            return
        if self._steering is not None:
            self._steering.released()
        self._before_pass = self._done
        steering = self._steering = Steering(self.batch.negatives, shown=self._shown)
        self._sampler = sampler
        host.wrap_pass(sampler, lambda values: self._guarded(lambda: self._look(values)), steering.released)

    def before(self, params: Any) -> None:
        """Open the session if needed, and apply negatives before a call of the denoiser."""
        self._guarded(lambda: self._before(params), steers=True)

    def answered(self, params: Any) -> None:
        """Pass the denoiser's output before guidance to the steering; only some hosts offer this callback."""
        steering = self._steering
        if steering is not None:
            self._guarded(lambda: steering.answered(params), steers=True)

    def after(self, params: Any) -> None:
        """Apply negatives after classifier-free guidance."""
        steering = self._steering
        if steering is not None:
            self._guarded(lambda: steering.after(params), steers=True)
            if steering.lost and self.batch is not None:
                self.batch.attention_lost()

    def batch_done(self, images: Any) -> None:
        """Make the final look at a decoded batch, generate images again if asked, and blank or blur withheld ones.

        Args:
            images: [B, 3, H, W] of 0…1, changed in place, because the host delivers this tensor; for videos all frames,
                video after video.
        """
        batch = self.batch
        if batch is None:
            return
        self._frames = max(len(images) // len(batch.negatives), 1)
        if self._steering is not None:
            self._steering.released()
        try:
            batch.open(None)  # without a sampling pass the final look is the only one
            self._settle(batch, images)
            while batch.again():
                drawn = self._drawn_again(batch, images)
                if drawn is None:
                    break
                for index in self._settle(batch, drawn):
                    rows = slice(index * self._frames, (index + 1) * self._frames)
                    images[rows] = drawn[rows]
        except Withheld:
            pass
        except Exception as error:
            log.exception("DNP Guard could not look at finished images")
            batch.failed(error)
        self._log(batch)
        self._settled(batch, images)

    def _settled(self, batch: Batch, images: Any) -> None:
        """Keep the outcomes for infotexts, count them, and overwrite the images that may not be delivered."""
        for index in range(len(batch.negatives)):
            self._said[self._first + index] = {
                "DNP Guard": batch.line(index),
                "DNP Guard request": batch.request or None,
                "DNP Guard receipt": batch.receipt(index),
            }
            self._counts[batch.decision(index)] += 1
        for place, image in enumerate(images):
            if batch.action(place // self._frames) != "pass":
                images[place] = self._withheld(image, place)

    def _withheld(self, image: Any, place: int) -> Any:
        try:
            return host.tensor(self.delivered(pictures.from_tensor(image), place), image)
        except Exception:
            log.exception("DNP Guard replaces a withheld image by plain grey, because it cannot write on it")
            return image * 0 + 0.5

    def _log(self, batch: Batch) -> None:
        """Log an error on the host's console if the images of a batch could not be checked."""
        if batch.closed or batch.failed_open or batch.verdicts is None:
            became = "delivered unguarded" if batch.failed_open else "withheld"
            reason, request = batch.failure or "they were never looked at", batch.request or "none"
            log.error("DNP Guard: the images of this batch are %s: %s (request %s)", became, reason, request)

    def _settle(self, batch: Batch, images: Any) -> tuple[int, ...]:
        middles = range(self._frames // 2, len(images), self._frames)  # the frame in the middle stands for a video
        finished = [pictures.from_tensor(images[place]) for place in middles]
        if self._done and batch.owes_a_look():
            batch.look(self._done, 1.0, None, finished, ended=True)
        return batch.settle(finished)

    def _drawn_again(self, batch: Batch, images: Any) -> Any:
        """Generate the batch again with the negatives of the retry; return the new images, or None on failure."""
        self._before_pass = self._done = 0
        self._seen = None
        try:
            drawn = self._redraw() if self._redraw is not None else None
        except Exception as error:
            log.exception("DNP Guard could not generate the batch again")
            batch.give_up(error)
            return None
        finally:
            if self._steering is not None:
                self._steering.released()
        other = drawn is not None and drawn.shape != images.shape
        if batch.over or other or host.stopped():
            reason = "the host generated pictures of another size" if other else "the job was stopped"
            batch.give_up(Withheld(batch.failure or reason))
            return None
        return drawn

    def delivered(self, picture: Any, index: int) -> Any:
        """Return a picture of the current batch as it may be delivered; a grey one before the final look.

        Args:
            picture: an image, or a frame of a video.
            index: its index in the batch, counted in frames.
        """
        index //= self._frames
        try:
            if self.batch is None:
                return pictures.acted(picture, "block", pictures.UNCHECKED)
            return pictures.acted(picture, self.batch.action(index), self.batch.words(index))
        except Exception:
            log.exception("DNP Guard withholds an image, because its outcome is unknown")
            return pictures.blank(picture)

    def infotext(self) -> dict[str, Callable[..., str | None]]:
        """Return the entries for the text that the host saves with an image, as functions that the host calls."""

        def entry(key: str) -> Callable[..., str | None]:
            def value(p: Any = None, index: int = 0, all_prompts: Any = None, **_: Any) -> str | None:
                # In its loop over batches the host counts images from 0 per batch, and afterwards over the whole job.
                # Only the number of prompts tells which: it may pass a copy of them.
                within = p is not None and all_prompts is not None and len(all_prompts) < len(p.all_prompts)
                return self._said.get(index + (p.iteration * p.batch_size if within else 0), {}).get(key)

            return value

        return {key: entry(key) for key in ("DNP Guard", "DNP Guard request", "DNP Guard receipt")}

    def ends(self) -> None:
        """Close the open session, at the end of a job or before its next batch; keep the outcomes of the images."""
        if self._steering is not None:
            self._steering.released()
            self._steering = None
        if self.batch is not None:
            self.batch.abandon()

    def _before(self, params: Any) -> None:
        if self.batch is None or self._steering is None:
            return
        if self.batch.session is None:
            self._expected = self._total(params.denoiser)
        self.batch.open(self._expected)
        self._sigma = float(params.sigma.max())
        self._steering.before(params)

    def _total(self, denoiser: Any) -> int | None:
        """Return the number of steps of this batch, including a later hires pass; None if unknown."""
        first = host.steps(denoiser.sampler)
        p = denoiser.p
        if first is None or not getattr(p, "enable_hr", False) or getattr(p, "is_hr_pass", False):
            return first
        return first + (getattr(p, "hr_second_pass_steps", 0) or p.steps)

    def _look(self, values: dict[str, Any]) -> None:
        batch, steering = self.batch, self._steering
        step = self._before_pass + int(values["i"])
        self._done = step + 1
        if batch is None or steering is None or batch.session is None:
            return
        if self._expected is not None:
            progress = min((step + 1) / self._expected, 1.0)
        else:
            progress = host.progress(self._sampler.model_wrap_cfg, self._sigma)
        if not batch.due(step, progress):
            return
        latents = values["denoised"]
        similarities = host.similarities(latents, self._seen) if batch.session.skip_similar is not None else ()
        decoder = DECODERS[self._settings.decoder]
        previews = [host.picture(latents, index, decoder) for index in range(len(latents))]
        host.resume(self._sampler.model_wrap_cfg)
        effective = steering.works(batch.mode or "replace")
        batch.look(step, progress, self._sigma, previews, similarities=similarities, effective=effective)
        self._seen = latents.clone()
        steering.prepare()

    def _guarded(self, work: Callable[[], None], *, steers: bool = False) -> None:
        """Call a function, note its failure, and end the job if the images are withheld or their verdicts are final.

        Args:
            work: the function, which may raise.
            steers: whether its failure means that the current call is not steered.
        """
        batch, steering = self.batch, self._steering
        if batch is None:
            return
        try:
            work()
        except Withheld as error:
            raise host.Interrupted(str(error)) from error
        except Exception as error:
            log.exception("DNP Guard failed")
            if steering is not None and steers:
                steering.failed = True
            if batch.session is None:
                batch.failed(error)
            else:  # a later look, or the final one, makes up for it
                batch.missed(error)
        if batch.closed or batch.over:
            raise host.Interrupted(batch.failure)
