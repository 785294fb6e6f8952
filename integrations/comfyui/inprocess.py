"""Guard a batch in ComfyUI's own process by the package ``dnp_guard``, without the guard service.

The class here has the same interface as ``batch.Batch``, which asks the service.
"""

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
"""One guard per policy, backend and audit log, because making a guard loads and warms up the model."""

_ACTIONS = {"blurred": "blur", "blocked": "block", "failed_closed": "block"}


def available() -> bool:
    """Return whether the package ``dnp_guard`` is installed in ComfyUI's environment."""
    try:
        import dnp_guard  # noqa: F401, PLC0415 (that is what is asked)
    except ImportError:
        return False
    return True


def guard_for(policy: str, vlm: str, audit: str) -> Any:
    """Return the ``dnp_guard.Guard`` for these arguments, which is made at the first call.

    Args:
        policy: path or shipped name of a policy; empty for the default policy.
        vlm: backend of the vision-language model, such as ``transformers:MODEL``.
        audit: destination of the audit records; empty for none.
    """
    from dnp_guard import Guard  # noqa: PLC0415 (it may not be installed)

    key = (policy, vlm, audit)
    if key not in _GUARDS:
        _GUARDS[key] = Guard(policy or "default", vlm=vlm, audit=audit or None)
    return _GUARDS[key]


class InProcess:
    """One batch guarded in process: its looks, the negatives that steer its images, and the outcome of every image.

    Args:
        guard: a ``dnp_guard.Guard``.
        policy: path or shipped name of a policy to apply on top of the guard's own; empty for none.
        prompts: one prompt per image.
        about: the fields ``host`` and ``run`` of the audit record.
        again: whether the run can generate single images of the batch again after the final look.
        attention: whether steering in attention space was shown to work; None if the host cannot steer there.
        brought: returns the request's input pictures (to edit or inpaint) as lists of frames; None without any.

    Attributes:
        negatives: one entry per image; None for an image that is not steered.
        driver: the package's driver of this generation; None before :meth:`open`.
        failure: message of the guard's latest failure; empty without one.
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
        """Begin the guarded generation; ``steps`` is the number of steps of the sampler, None if unknown.

        Raises:
            Withheld: the policy does not allow so many questions, refuses one of the request's input pictures, or
                steers in the attention, which this model does not offer.
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
            raise Withheld(f"DNP Guard refuses the request because of one of its own pictures: {why}")

    @property
    def request(self) -> str:
        """Id under which the batch's audit records are filed; empty before :meth:`open`."""
        return self.driver.id if self.driver is not None else ""

    @property
    def mode(self) -> str:
        """How negatives steer: ``separate``, ``replace`` or ``attention``."""
        return self.driver.policy.guidance.mode

    @property
    def mask(self) -> float | None:
        """Share of the positions in the picture that are steered; None for the whole picture."""
        return self.driver.policy.guidance.mask

    @property
    def user_previews(self) -> tuple[str, ...]:
        """Per image, how users may see its previews: ``withhold``, ``blur`` or ``allow``."""
        return self.driver.user_previews

    def due(self, step: int, progress: float) -> bool:
        """Return whether the model is to be queried about the images of a step."""
        from dnp_guard.generation import pacing  # noqa: PLC0415

        at, of = pacing.place(self._step(step, progress))
        return of is not None and self.driver.due(at, of)

    def owes_a_look(self) -> bool:
        """Return False: the package itself makes up for missing queries when the run ends."""
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
        """Query the model about a step's predicted images, and keep the resulting negatives; see :meth:`Batch.look`."""
        from dnp_guard.generation.host import Pictures  # noqa: PLC0415

        at = self._step(step, progress, sigma, effective=effective)
        self.driver.step(at, Pictures(previews, similarities))
        self._hold()

    def settle(self, images: Sequence[Any]) -> tuple[int, ...]:
        """Make the final look: have the finished images of the current attempt judged.

        Returns:
            Indices of the images whose new pictures are delivered; the others keep the picture of the earlier attempt.
        """
        from dnp_guard.generation.redrawing import attempted  # noqa: PLC0415 (it may not be installed)

        drawn = self.drawn
        stands, self._pending = attempted(self.driver, lambda: list(images))
        if not self._pending:
            self._settled()
        return drawn if stands else ()

    @property
    def drawn(self) -> tuple[int, ...]:
        """Indices of the images that the current attempt generates."""
        return self.driver.session.state.drawn

    @property
    def retries(self) -> int:
        """How often an image may be generated again after the final look."""
        retries = self.driver.policy.retries
        return retries.most if self._can and retries is not None else 0

    def again(self) -> tuple[int, ...]:
        """Begin another attempt at the images whose final look asks for it, and keep their new negatives.

        Returns:
            Indices of these images; empty if there are none.
        """
        if self._pending:
            self._hold()
        return self._pending

    def give_up(self, error: Exception) -> None:
        """End a failed retry; its images get the outcome that the policy sets for images that are not retried."""
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
        """Note that the host could not steer in attention space, and keep negatives of another mode instead."""
        self.driver.attention_lost()
        self._hold()

    def missed(self, error: Exception) -> None:
        """Note that a query failed; the images of the next step are queried instead."""
        self.failure = str(error) or type(error).__name__
        self.driver.missed(None, error)

    def abandon(self) -> None:
        """End the generation without finished images, unless the final look has ended it."""
        if self.driver is not None and self._outcomes is None:
            self.driver.abandon("the run ended without finished images")
            self._guard.finished(self.driver)

    @property
    def closed(self) -> bool:
        """Whether a failure withholds the images before the final look; always False in process."""
        return False

    def action(self, index: int) -> str:
        """Return the action on a finished image: ``pass``, ``blur`` or ``block``; without a final look, ``block``."""
        return _ACTIONS.get(str(self._outcomes[index]), "pass") if self._outcomes is not None else "block"

    def decision(self, index: int) -> str:
        """Return the outcome of an image as the audit names it; ``failed_closed`` without a final look."""
        return str(self._outcomes[index]) if self._outcomes is not None else "failed_closed"

    def words(self, index: int) -> str:
        """Return the text to show a person in place of a withheld image."""
        from dnp_guard.hosts import withheld  # noqa: PLC0415 (there where the guard runs in process)

        if self._outcomes is None or self.driver is None:
            return pictures.UNCHECKED
        return withheld.words(self.driver.policy, self._outcomes[index])

    def line(self, index: int) -> str:
        """Summarise an image's outcome in a few words for the report."""
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
    """Convert a negative of the package ``dnp_guard`` to the form that the service sends."""
    if held is None:
        return None
    how = held.attention
    parts = tuple(", ".join(words) for words in held.groups)
    attention = None if how is None else Attention(how.phi, how.tau, how.alpha, parts, how.mask)
    return Negative(held.text, held.scale, held.mode, attention)
