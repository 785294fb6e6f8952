"""Guard one batch of images: show its pictures to the guard service (a look), and act on the service's answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import pictures
from .client import Client, ServiceFailed
from .looks import Looks, closes, interrupted
from .messages import Negative, Session, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .settings import Settings


class Withheld(Exception):
    """Generation of the batch must stop: it cannot be guarded or is refused, and its images are withheld."""


class Batch:
    """One guarded batch: its looks, the negative prompts that steer its images, and the outcome of every image.

    Args:
        client: client of the guard service.
        settings: settings of the job.
        prompts: one prompt per image.
        about: the arguments ``host`` and ``run`` of :meth:`Client.start`, for the audit record.
        again: whether the host can generate single images of the batch again after the final look.
        attention: whether steering in attention space was shown to work; None if the host cannot steer there.
        brought: returns the request's input pictures (to edit or inpaint) as lists of frames; None without any.
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
        brought: Callable[[], Sequence[Sequence[Any]]] | None = None,
    ) -> None:
        self.negatives: list[Negative | None] = [None] * len(prompts)
        self.mode = ""
        """How negatives steer: ``separate``, ``replace`` or ``attention``; empty while unknown."""
        self.session: Session | None = None
        self.verdicts: list[Verdict] | None = None
        self.failure = ""
        """Message of the guard's latest failure; empty without one."""
        self.client = client
        self._settings = settings
        self._prompts = list(prompts)
        self._about, self._can, self._attention = about, again, attention
        self._used, self._brought = "", brought
        self._injected: list[list[tuple[str, int]]] = [[] for _ in prompts]
        self._before = [list(words) for words in self._injected]  # for the attempt whose picture is delivered
        self._previews: tuple[str, ...] = ()
        self._answered = False
        self._fate = ""  # "open" or "closed" after a failure that decides the outcome of all images
        self._steps: int | None = None
        self._looks = Looks()

    @property
    def request(self) -> str:
        """Id of the session, under which the batch's audit records are filed; empty without a session."""
        return self.session.id if self.session is not None else ""

    @property
    def user_previews(self) -> tuple[str, ...]:
        """Per image, how users may see its previews: ``withhold`` (always without a session), ``blur`` or ``allow``."""
        allowed = self.session.user_previews if self.session is not None else "withhold"
        return self._previews or (allowed,) * len(self._prompts)

    def open(self, steps: int | None) -> None:
        """Open the session, once; ``steps`` is the number of steps over all sampling passes, None if unknown.

        Raises:
            Withheld: the guard failed and withholds the images, or the policy refuses one of the input pictures.
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
                    brings=self._brought is not None,
                )
                self.mode = self.session.guidance
            except ServiceFailed as error:
                self.failed(error)
            else:
                self._show_inputs(self.session)
        refused = self.session is not None and self.session.refused and not self._shadow
        if self.closed or refused:
            raise Withheld(self.failure or "DNP Guard refuses the request because of one of its own pictures")

    def _show_inputs(self, session: Session) -> None:
        """Show the request's input pictures to the service; if that fails, go on or withhold, as the policy says."""
        if self._brought is None or not session.asks:
            return
        shown = None
        try:
            shown = pictures.finished_urls([frame for frames in self._brought() for frame in frames])
            if not self.client.inputs(session, shown):
                self.session = replace(session, refused=True)
                self.verdicts = self.client.final(session, [])
        except Exception as error:
            if interrupted(error):
                raise
            self.failure = str(error) if isinstance(error, ServiceFailed) else f"bad_picture: {type(error).__name__}"
            # A refusal stands, even if the service dies before recording it.
            caused = shown is None or self.session is not session or getattr(error, "request_caused", False)
            if not self._shadow and (caused or closes(session.on_failure, answered=False)):
                self._fate = "closed"

    def due(self, step: int, progress: float) -> bool:
        """Note a step, counted over all sampler passes, and return whether a query is due, as after a failed one."""
        if self.session is None or self._fate or self.over:
            return False
        return self._looks.due(self.session, step, progress)

    def owes_a_look(self) -> bool:
        """Return whether a query must follow the last step: a due step was not reached, or the last query failed."""
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
        """Show a step's predicted images to the service, and keep the negatives of its answer in :attr:`negatives`.

        Args:
            step: 0-based, over all passes; at the end of a run it may be the number of executed steps.
            progress: executed share of the run, 0 to 1.
            sigma: noise level; None if unknown.
            previews: one picture per image.
            similarities: per image, similarity to its picture at the previous look; empty at the first look.
            effective: whether a negative can still change the image at the steps that follow.
            ended: whether the run ends here, perhaps before its last due step.
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
            in_vain = self._looks.in_vain and closes(self.session.on_failure, answered=self._answered)
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
        """Make the final look: have the service judge the finished images of the current attempt.

        Returns:
            Indices of the images whose new pictures are delivered; the others keep the picture of the earlier attempt.
        """
        if self.session is None or self._fate or self.over:
            return ()
        try:
            shown = pictures.finished_urls([images[index] for index in self.drawn])
            verdicts = self.client.final(self.session, shown, used=self._used)
        except ServiceFailed as error:
            self.failed(error)
            return ()
        earlier = self.verdicts or [Verdict("failed_closed", "block", None)] * len(self._prompts)
        new = dict(zip(self.drawn, verdicts))
        self.verdicts = [new.get(index, verdict) for index, verdict in enumerate(earlier)]
        stand = tuple(index for index, verdict in new.items() if not verdict.earlier)
        for index in self.drawn:
            latest, other = (self._injected, self._before) if index in stand else (self._before, self._injected)
            other[index] = list(latest[index])
        return stand

    @property
    def drawn(self) -> tuple[int, ...]:
        """Indices of the images that the current attempt generates."""
        return self.session.drawn if self.session is not None else tuple(range(len(self._prompts)))

    @property
    def retries(self) -> int:
        """How often an image may be generated again after the final look."""
        return self.session.retries if self.session is not None else 0

    def again(self) -> tuple[int, ...]:
        """Begin another attempt at the images whose verdict is ``retry``, and keep their new negatives.

        Returns:
            Indices of these images; empty if there are none, or if the service opens no session for them.
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
        """End a failed retry: replace the action ``retry`` of its images by their verdicts' ``otherwise``."""
        images = self._pending
        if self.session is None or self.verdicts is None or not images:
            return
        self.failure = str(error) or type(error).__name__
        self.client.abandon(self.session)
        self._looks = Looks(self._steps)
        for index in images:
            self._injected[index] = list(self._before[index])
        self.verdicts = [
            replace(verdict, action=verdict.otherwise) if verdict.action == "retry" else verdict
            for verdict in self.verdicts
        ]

    @property
    def _pending(self) -> tuple[int, ...]:
        numbered = enumerate(self.verdicts or ())
        return tuple(index for index, verdict in numbered if verdict.action == "retry")

    def _hold(self, negatives: Sequence[Negative | None], step: int) -> None:
        held = dict(zip(self.drawn, negatives))
        for index, negative in held.items():
            if negative is not None and negative != self.negatives[index]:
                self._injected[index].append((negative.text, step))
        self.negatives[:] = [held.get(index) for index in range(len(self._prompts))]

    def attention_lost(self) -> None:
        """Note that the host could not steer in attention space; the next step asks for a separate term instead."""
        if self.mode == "attention":
            self._used, self._looks.missed = "separate", True

    def missed(self, error: Exception) -> None:
        """Note that a query failed or was not answered: negative prompts stay in force, and the next step is due."""
        self._looks.failed(silent=isinstance(error, ServiceFailed))
        self.failure = str(error) or type(error).__name__

    def failed(self, error: Exception) -> None:
        """Note that the guard failed for this batch: withhold its images or let them pass; keep existing verdicts."""
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
        """Tell the service to close the session, unless the final look has finished it."""
        if self.session is not None and (self.verdicts is None or self._pending):
            self.client.abandon(self.session)

    @property
    def _shadow(self) -> bool:
        """Whether the policy runs in shadow mode, in which findings are recorded and every image passes."""
        return self.session is not None and self.session.mode == "shadow"

    @property
    def over(self) -> bool:
        """Whether the verdicts are final: all images have one, and none asks for another attempt."""
        return self.verdicts is not None and not self._pending

    @property
    def closed(self) -> bool:
        """Whether the images are withheld because the guard failed."""
        return self._fate == "closed"

    @property
    def failed_open(self) -> bool:
        """Whether the images pass although the guard failed."""
        return self._fate == "open"

    def action(self, index: int) -> str:
        """Return the action on a finished image: ``pass``, ``blur`` or ``block``; ``block`` without a final look."""
        if self._fate or self._shadow:
            return "block" if self.closed else "pass"
        if self.verdicts is None:
            return "block"
        verdict = self.verdicts[index]
        return verdict.otherwise if verdict.action == "retry" else verdict.action

    def decision(self, index: int) -> str:
        """Return the outcome of an image as the audit names it: the service's, or ``failed_open``/``failed_closed``."""
        if self._fate:
            return f"failed_{self._fate}"
        return self.verdicts[index].decision if self.verdicts is not None else "failed_closed"

    def words(self, index: int) -> str:
        """Return the text to show a person in place of a withheld image."""
        if self.decision(index) == "failed_closed":
            unchecked = self.verdicts[index].message if self.verdicts is not None else ""
            return unchecked or pictures.unchecked(self.failure)
        return (self.verdicts[index].message if self.verdicts is not None else "") or pictures.WITHHELD

    def line(self, index: int) -> str:
        """Summarise an image's outcome in a few words for the generation parameters saved with it."""
        decision = self.decision(index)
        if self._fate or self.verdicts is None:
            return f"{decision} ({self.failure or 'never looked at'})"
        steered = "; ".join(pictures.steered(words, step) for words, step in self._injected[index])
        return f"{decision} {steered}".strip()

    def receipt(self, index: int) -> str | None:
        """Return the service's signed receipt for an image; None without one."""
        return self.verdicts[index].receipt if self.verdicts is not None else None
