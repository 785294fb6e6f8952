"""One batch of a job: one session of the service, from its first call of the denoiser to the final look."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import pictures
from .client import Client, ServiceFailed
from .looks import Looks
from .messages import Negative, Session, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .settings import Settings


_TRIES = 3
"""Looks in a row that the service does not answer, after which a run that is closed by it is not drawn to its end."""


class Withheld(Exception):
    """The batch must not go on: it cannot be guarded, and is closed."""


class Batch:
    """The looks at one batch, what they ask for, and what becomes of its images.

    Args:
        client: of the service.
        settings: of the job.
        prompts: one an image.
        about: ``host`` and ``run`` of the record.
        again: whether images of it can be drawn again.
        attention: whether steering in attention space was shown to work; None where the host cannot.
        brought: shows the request's own pictures, which it starts from; None where it brings none.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        prompts: Sequence[str],
        about: dict[str, dict[str, Any]],
        *,
        again: bool = False,
        attention: bool | None = None,
        brought: Callable[[], Sequence[Any]] | None = None,
    ) -> None:
        self.negatives: list[Negative | None] = [None] * len(prompts)
        self.mode = ""
        """How negatives enter the guidance; empty while that is not known."""
        self.session: Session | None = None
        self.verdicts: list[Verdict] | None = None
        self.failure = ""
        """Why the guard could not do its job at some time; empty while it could."""
        self.client = client
        self._settings = settings
        self._prompts = list(prompts)
        self._about, self._can, self._attention = about, again, attention
        self._used, self._brought = "", brought
        self._injected: list[list[tuple[str, int]]] = [[] for _ in prompts]
        self._before = [list(each) for each in self._injected]  # of the attempt whose picture is the latest that stands
        self._previews: tuple[str, ...] = ()
        self._answered = False
        self._fate = ""  # open or closed once nothing but that can be said of the images
        self._steps: int | None = None
        self._looks = Looks()

    @property
    def request(self) -> str:
        """The id that the records of this batch have; empty where there are none."""
        return self.session.id if self.session is not None else ""

    @property
    def user_previews(self) -> tuple[str, ...]:
        """What users may see of each unfinished image; nothing while there is no session that says so."""
        told = self.session.user_previews if self.session is not None else "withhold"
        return self._previews or (told,) * len(self._prompts)

    def open(self, steps: int | None) -> None:
        """Open the session, at the first call of the denoiser.

        Raises:
            Withheld: there is none, and that is closed, or the policy refuses the request for one of its own pictures.
        """
        if self.session is None and not self._fate:
            self._steps, self._looks = steps, Looks(steps)
            try:
                self.session = self.client.start(
                    **self._about,
                    prompts=self._prompts,
                    steps=steps,
                    policy=self._settings.policy,
                    again=self._can,
                    attention=self._attention,
                    brought=(lambda: pictures.finished_urls(self._brought())) if self._brought else None,
                )
                self.mode = self.session.guidance
                if self.session.refused:
                    self.verdicts = self.client.final(self.session, [])
            except ServiceFailed as error:
                if self.session is not None and self.session.refused:
                    self._fate = "closed"  # the refusal stands, although the service did not live to record it
                self.failed(error)
        refused = self.session is not None and self.session.refused and not self._shadow
        if self.closed or refused:
            raise Withheld(self.failure or "DNP Guard refuses the request for one of its own pictures")

    def due(self, step: int, progress: float) -> bool:
        """Note a step, counted over all passes, and say whether a look is due at it, as one is at each after a miss."""
        if self.session is None or self._fate or self.over:
            return False
        return self._looks.due(self.session, step, progress)

    def owes_a_look(self) -> bool:
        """Whether the run has ended before its last due step, or at a look that was not answered."""
        if self.session is None or self._fate or self.over:
            return False
        return self._looks.owed(self.session)

    def look(
        self,
        step: int,
        progress: float,
        sigma: float | None,
        previews: Sequence[Any],
        *,
        similarities: Sequence[float] = (),
        effective: bool = True,
        ended: bool = False,
    ) -> None:
        """Have a step's predictions looked at, and hold what is to be steered away from.

        Args:
            step: 0-based, over all passes; where the run has ended, it may be the number of steps that were made.
            progress: share of the run.
            sigma: noise level, where it is known.
            previews: one picture an image.
            similarities: of each prediction with the one that was last looked at; empty where there is none.
            effective: whether a negative can take effect at the steps that follow.
            ended: whether the run has ended here, perhaps before its last due step.
        """
        if self.session is None:
            return
        self._looks.begins(step, progress)
        if ended:
            step = self._looks.last(step, known=self.client.knows("ended"))
        try:
            answer = self.client.query(
                self.session,
                step=step,
                progress=progress,
                sigma=sigma,
                pictures=[pictures.preview_url(previews[index]) for index in self.drawn],
                similarities=[similarities[index] for index in self.drawn] if similarities else (),
                effective=effective,
                used=self._used,
                beside=self._looks.beside(self.session, ended=ended),
            )
        except ServiceFailed as error:
            self.missed(error)
            in_vain = self._looks.silent >= _TRIES and closes(self.session.on_failure, answered=self._answered)
            if error.request_caused or (in_vain and not self._shadow):
                self.failed(error)
            return
        self._looks.answered(answered=answer.answered)
        self.mode = answer.mode
        self._answered = self._answered or answer.answered
        self.failure = "" if answer.answered else "the look was not answered"
        self._hold(answer.negatives, step)
        if answer.previews:
            allowed = dict(zip(self.drawn, answer.previews))
            self._previews = tuple(allowed.get(index, "withhold") for index in range(len(self._prompts)))
        else:
            self._previews = ()

    def settle(self, images: Sequence[Any]) -> tuple[int, ...]:
        """Make the final look at the finished images, of which those count that are drawn.

        Returns:
            Those that the verdicts are on; of the others, those of the attempt before are delivered.
        """
        if self.session is None or self._fate or self.over:
            return ()
        try:
            shown = pictures.finished_urls([images[index] for index in self.drawn])
            told = self.client.final(self.session, shown, used=self._used)
        except ServiceFailed as error:
            self.failed(error)
            return ()
        earlier = self.verdicts or [Verdict("failed_closed", "block", None)] * len(self._prompts)
        new = dict(zip(self.drawn, told))
        self.verdicts = [new.get(index, verdict) for index, verdict in enumerate(earlier)]
        stand = tuple(index for index, verdict in new.items() if not verdict.earlier)
        for index in self.drawn:
            latest, other = (self._injected, self._before) if index in stand else (self._before, self._injected)
            other[index] = list(latest[index])
        return stand

    @property
    def drawn(self) -> tuple[int, ...]:
        """The images that the attempt which runs is about."""
        return self.session.drawn if self.session is not None else tuple(range(len(self._prompts)))

    @property
    def retries(self) -> int:
        """How often an image may have to be drawn again."""
        return self.session.retries if self.session is not None else 0

    def again(self) -> tuple[int, ...]:
        """Begin to draw those images again whose verdict says so; hold what they are steered away from.

        Returns:
            Those images; none where there are none, or they cannot be.
        """
        images = self._pending
        if self.session is None or not images:
            return ()
        try:
            self.session, negatives = self.client.again(self.session, self._about["host"], images)
        except (ServiceFailed, KeyError, TypeError, ValueError) as error:
            self.give_up(error)
            return ()
        self._looks, self._previews = Looks(self._steps), ("withhold",) * len(self._prompts)
        self._hold(negatives, -1)
        return images

    def give_up(self, error: Exception) -> None:
        """End an attempt that comes to nothing: its images meet what is done otherwise."""
        images = self._pending
        if self.session is None or self.verdicts is None or not images:
            return
        self.failure = str(error) or type(error).__name__
        self.client.abandon(self.session)
        self._looks = Looks(self._steps)
        for index in images:
            self._injected[index] = list(self._before[index])
        self.verdicts = [
            replace(each, action=each.otherwise) if each.action == "retry" else each for each in self.verdicts
        ]

    @property
    def _pending(self) -> tuple[int, ...]:
        told = enumerate(self.verdicts or ())
        return tuple(index for index, verdict in told if verdict.action == "retry")

    def _hold(self, negatives: Sequence[Negative | None], step: int) -> None:
        held = dict(zip(self.drawn, negatives))
        for index, negative in held.items():
            if negative is not None and negative != self.negatives[index]:
                self._injected[index].append((negative.text, step))
        self.negatives[:] = [held.get(index) for index in range(len(self._prompts))]

    def attention_lost(self) -> None:
        """Note that the host could not steer in attention space: the next step asks what to do instead."""
        if self.mode == "attention":
            self._used, self._looks.missed = "separate", True

    def missed(self, error: Exception) -> None:
        """Note a look that was not answered: negatives in force stay, and the next step is looked at."""
        self._looks.failed(silent=isinstance(error, ServiceFailed))
        self.failure = str(error) or type(error).__name__

    def failed(self, error: Exception) -> None:
        """Note that the guard cannot do its job for this batch, and what that makes of its images; verdicts stand."""
        if self.verdicts is not None:
            self.give_up(error)
            return
        self.failure = str(error) or type(error).__name__
        on_failure = self._settings.on_failure if self.session is None else self.session.on_failure
        caused = getattr(error, "request_caused", False)
        if self._shadow:
            self._fate = "open"
        elif self._fate != "closed":
            self._fate = "closed" if caused or closes(on_failure, answered=self._answered) else "open"

    def abandon(self) -> None:
        """Close a session that has had no final look."""
        if self.session is not None and (self.verdicts is None or self._pending):
            self.client.abandon(self.session)

    @property
    def _shadow(self) -> bool:
        """Whether the policy in force withholds nothing, whatever happens."""
        return self.session is not None and self.session.mode == "shadow"

    @property
    def over(self) -> bool:
        """Whether the verdicts stand, as nothing is to be drawn again, or it was given up."""
        return self.verdicts is not None and not self._pending

    @property
    def closed(self) -> bool:
        """Whether the images are withheld because the guard could not do its job."""
        return self._fate == "closed"

    @property
    def failed_open(self) -> bool:
        """Whether the images pass although the guard could not do its job."""
        return self._fate == "open"

    def action(self, index: int) -> str:
        """What is done to a finished image: ``pass``, ``blur`` or ``block``; what was never looked at is blocked."""
        if self._fate or self._shadow:
            return "block" if self.closed else "pass"
        if self.verdicts is None:
            return "block"
        verdict = self.verdicts[index]
        return verdict.otherwise if verdict.action == "retry" else verdict.action

    def decision(self, index: int) -> str:
        """What became of an image, as the service or the failure has it."""
        if self._fate:
            return f"failed_{self._fate}"
        return self.verdicts[index].decision if self.verdicts is not None else "failed_closed"

    def words(self, index: int) -> str:
        """What a person reads in place of an image that is withheld."""
        if self.decision(index) == "failed_closed":
            unchecked = self.verdicts[index].message if self.verdicts is not None else ""
            return unchecked or pictures.unchecked(self.failure)
        return (self.verdicts[index].message if self.verdicts is not None else "") or pictures.WITHHELD

    def line(self, index: int) -> str:
        """What happened to an image, in a few words for its infotext."""
        decision = self.decision(index)
        if self._fate or self.verdicts is None:
            return f"{decision} ({self.failure or 'never looked at'})"
        steered = "; ".join(pictures.steered(words, step) for words, step in self._injected[index])
        return f"{decision} {steered}".strip()

    def receipt(self, index: int) -> str | None:
        """What the service signed about an image."""
        return self.verdicts[index].receipt if self.verdicts is not None else None


def closes(on_failure: str, *, answered: bool) -> bool:
    """Whether a failure that no later look made up for withholds the image.

    Args:
        on_failure: the policy's choice; ``last`` lets the last answered look stand, which cannot have blocked.
        answered: whether any look was answered.
    """
    return on_failure != "open" and not (on_failure == "last" and answered)
