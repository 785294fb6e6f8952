"""Guard a batch in ComfyUI's own process, with the interface that ``batch`` has for the service."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from . import pictures
from .batch import Withheld
from .looks import interrupted
from .messages import Attention, Negative

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger("dnp_guard")

_GUARDS: dict[tuple[str, str, str], Any] = {}
"""One guard per policy, backend and log, because making a guard loads and warms the model."""

_ACTIONS = {"blurred": "blur", "blocked": "block", "failed_closed": "block"}


def available() -> bool:
    """Return whether ComfyUI's environment has the package."""
    try:
        import dnp_guard  # noqa: F401, PLC0415 (that is what is asked)
    except ImportError:
        return False
    return True


def guard_for(policy: str, vlm: str, audit: str) -> Any:
    """Return the guard of a policy (a path or a shipped name), a backend and a log; make it at the first call."""
    from dnp_guard import Guard  # noqa: PLC0415 (it may not be installed)

    key = (policy, vlm, audit)
    if key not in _GUARDS:
        _GUARDS[key] = Guard(policy or "default", vlm=vlm, audit=audit or None)
    return _GUARDS[key]


class InProcess:
    """The looks at one batch, the negatives that follow from them, and the outcomes of its images.

    Args:
        guard: a ``dnp_guard.Guard``.
        policy: path or shipped name of a further policy, to be stricter by; empty for none.
        prompts: one prompt per image.
        about: ``host`` and ``run`` of the record.
        again: whether images of the batch can be drawn again.
        attention: whether steering in attention space was shown to work; None if the host cannot steer there.
        brought: returns the request's own pictures as lists of frames, before the first step; None if it brings none.

    Attributes:
        negatives: the negatives, one per image; None for an image without one.
        driver: driver of the session, once it is open.
        failure: the reason of the latest failure of the guard; empty without one.
    """

    def __init__(
        self,
        guard: Any,
        policy: str,
        prompts: Sequence[str],
        about: dict[str, dict[str, Any]],
        *,
        again: bool = False,
        attention: bool | None = None,
        brought: Callable[[], Sequence[Sequence[Any]]] | None = None,
    ) -> None:
        self.negatives: list[Any] = [None] * len(prompts)
        self.driver: Any = None
        self.failure = ""
        self._guard, self._policy = guard, policy
        self._prompts, self._about = tuple(prompts), about
        self._steps: int | None = None
        self._outcomes: tuple[Any, ...] | None = None
        self._can, self._attention, self._brought = again, attention, brought
        self._pending: tuple[int, ...] = ()

    def open(self, steps: int | None) -> None:
        """Open the session.

        Raises:
            Withheld: the policy does not allow so many questions, or refuses one of the request's own pictures.
        """
        from dnp_guard import RequestRefused  # noqa: PLC0415 (it may not be installed)
        from dnp_guard.generation import reach  # noqa: PLC0415
        from dnp_guard.generation.state import Request  # noqa: PLC0415

        self._steps = steps
        prompts = self._prompts if any(self._prompts) else ()
        request = Request(len(self._prompts), self._about["host"], prompts, self._about["run"], draws_again=self._can)
        try:
            with self._guard.tightened(self._policy or None) as guard:
                if self._attention is None and reach.in_attention(guard.policy, shown=False):
                    raise Withheld("The policy steers in attention space, which is not reached in this model.")
                self.driver = guard.start(request)
                if self._attention is not None and reach.in_attention(guard.policy, shown=self._attention):
                    self.driver.session.steers_attention(guided=self._about["run"].get("guidance_scale") != 1)
        except RequestRefused as error:
            raise Withheld(str(error)) from error
        self._show_inputs()

    def _show_inputs(self) -> None:
        if self._brought is None or not self.driver.policy.asks_inputs:
            return
        try:
            shown = self._brought()
        except Exception as error:
            if interrupted(error):
                raise
            log.exception("DNP Guard cannot show a picture that a run starts from")
            shown = [[]]
        self.driver.inputs(shown)
        if self.driver.report is not None:
            self._settled()
            why = self.driver.report.images[0].why
            raise Withheld(f"DNP Guard refuses the request for one of its own pictures: {why}")

    @property
    def request(self) -> str:
        """The id of this batch's records; empty without records."""
        return self.driver.id if self.driver is not None else ""

    @property
    def mode(self) -> str:
        """How a negative enters the guidance."""
        return self.driver.policy.guidance.mode

    @property
    def mask(self) -> float | None:
        """The share of the picture that is steered; None for the whole picture."""
        return self.driver.policy.guidance.mask

    @property
    def user_previews(self) -> tuple[str, ...]:
        """How users may see the unfinished images."""
        return self.driver.user_previews

    def due(self, step: int, progress: float) -> bool:
        """Return whether a look is due at a step."""
        from dnp_guard.generation import pacing  # noqa: PLC0415

        at, of = pacing.place(self._step(step, progress))
        return of is not None and self.driver.due(at, of)

    def owes_a_look(self) -> bool:
        """Return whether the host should ask again at the end; the session itself makes up for that here."""
        return False

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
        """Look at a step's predictions, and hold the negatives."""
        from dnp_guard.generation.host import Pictures  # noqa: PLC0415

        at = self._step(step, progress, sigma, effective=effective)
        self.driver.step(at, Pictures(previews, similarities))
        self._hold()

    def settle(self, images: Sequence[Any]) -> tuple[int, ...]:
        """Make the final look at the finished images of the current attempt.

        Returns:
            Images whose new pictures stand; the others are delivered as their earlier attempt drew them.
        """
        from dnp_guard.generation.redrawing import attempted  # noqa: PLC0415 (it may not be installed)

        drawn = self.drawn
        stands, self._pending = attempted(self.driver, lambda: list(images))
        if not self._pending:
            self._settled()
        return drawn if stands else ()

    @property
    def drawn(self) -> tuple[int, ...]:
        """The images that the current attempt draws."""
        return self.driver.session.state.drawn

    @property
    def retries(self) -> int:
        """The number of times that an image may be drawn again."""
        retries = self.driver.policy.retries
        return retries.most if self._can and retries is not None else 0

    def again(self) -> tuple[int, ...]:
        """Begin to draw the images again whose final look asks for it, and hold their negatives.

        Returns:
            These images.
        """
        if self._pending:
            self._hold()
        return self._pending

    def give_up(self, error: Exception) -> None:
        """End a failed attempt; the action ``otherwise`` applies to its images."""
        if not self._pending:
            return
        self._pending = ()
        self.driver.give_up(error)
        self._settled()

    def _settled(self) -> None:
        self._outcomes = self.driver.outcomes
        self._guard.finished(self.driver)

    def _hold(self) -> None:
        from dnp_guard.generation.second_chance import to_hold  # noqa: PLC0415 (it may not be installed)

        self.negatives[:] = map(_negative, to_hold(self.driver.session.state))

    def attention_lost(self) -> None:
        """Note that the host could not steer in attention space, and hold negatives of another mode."""
        self.driver.attention_lost()
        self._hold()

    def missed(self, error: Exception) -> None:
        """Note a failure at a step; the next step is looked at."""
        self.failure = str(error) or type(error).__name__
        self.driver.missed(None, error)

    def abandon(self) -> None:
        """Close a session that had no final look."""
        if self.driver is not None and self._outcomes is None:
            self.driver.abandon("the run ended without finished images")
            self._guard.finished(self.driver)

    @property
    def closed(self) -> bool:
        """Whether the images are withheld before the final look; never in process."""
        return False

    def action(self, index: int) -> str:
        """Return the action on a finished image: ``pass``, ``blur`` or ``block``; ``block`` without any look."""
        return _ACTIONS.get(str(self._outcomes[index]), "pass") if self._outcomes is not None else "block"

    def decision(self, index: int) -> str:
        """Return the outcome of an image; an image without any look is withheld."""
        return str(self._outcomes[index]) if self._outcomes is not None else "failed_closed"

    def words(self, index: int) -> str:
        """Return the words that a person reads in place of a withheld image."""
        from dnp_guard.hosts import withheld  # noqa: PLC0415 (there where the guard runs in process)

        if self._outcomes is None or self.driver is None:
            return pictures.UNCHECKED
        return withheld.words(self.driver.policy, self._outcomes[index])

    def line(self, index: int) -> str:
        """Summarise an image's outcome in a few words."""
        report = self.driver.report if self.driver is not None else None
        if report is None:
            return self.failure or "never looked at"
        image = report.images[index]
        steered = "; ".join(pictures.steered(negative.text, step - 1) for step, negative in image.negatives)
        return f"{image.decision} {steered}".strip()

    def _step(self, index: int, progress: float, sigma: float | None = None, *, effective: bool = True) -> Any:
        from dnp_guard.types import Step  # noqa: PLC0415

        known = self._steps is not None
        return Step(index, self._steps, sigma, None, progress=None if known else progress, effective=effective)


def _negative(held: Any) -> Negative | None:
    """Convert a negative of the package to one of the service's form."""
    if held is None:
        return None
    how = held.attention
    parts = tuple(", ".join(words) for words in held.groups)
    attention = None if how is None else Attention(how.phi, how.tau, how.alpha, parts, how.mask)
    return Negative(held.text, held.scale, held.mode, attention)
