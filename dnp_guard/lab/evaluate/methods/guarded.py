"""Run the guard itself as a method of the comparison, with its own policy or a changed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from dnp_guard.errors import DnpGuardError
from dnp_guard.guard import Guard
from dnp_guard.lab.evaluate.album import Album
from dnp_guard.lab.evaluate.methods.base import Made, asked
from dnp_guard.lab.evaluate.methods.meter import Meter
from dnp_guard.lab.evaluate.methods.sampling import branches_of, call, denoiser_of
from dnp_guard.policy import Policy, load_policy
from dnp_guard.policy.model.ends import FinalLook, Retries
from dnp_guard.types import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.lab.evaluate.methods.base import Task
    from dnp_guard.lab.world.captions import Prompt
    from dnp_guard.policy.model.ends import View
    from dnp_guard.types import ImageReport
    from dnp_guard.vlm.base import Backend

RETRIES: Final = Retries(most=3, scale=1.2)
VIEWS: Final[tuple[View, ...]] = ("flip",)
STRICTER: Final = 0.6
"""Settings of ``dnp-guard-retry``: retries, views of the finished image to query, and factor on its thresholds.

Chosen on training captions, as ``docs/how-to/policy.md`` shows."""

_ACTIONS = {Outcome.BLURRED, Outcome.BLOCKED, Outcome.FAILED_CLOSED}


class Guarded:
    """Method that attaches a guard to the pipeline.

    Args:
        name: name in the table.
        policy: policy to enforce; None for the shipped ``glyphs``.
        scale: guidance scale of the negative prompts; None for the policy's own.

    Raises:
        DnpGuardError: if a scale is given and the policy's mode has none.
    """

    sampler: ClassVar[str] = "DDIM"

    def __init__(self, name: str = "dnp-guard", *, policy: Policy | None = None, scale: float | None = None) -> None:
        self.name = name
        self.policy = _scaled(policy or load_policy("glyphs"), scale)

    @property
    def mode(self) -> str:
        """How the negative prompt enters the guidance, by the policy."""
        return self.policy.guidance.mode

    @property
    def scale(self) -> float | None:
        """Guidance scale of the policy's negative prompts; None if its mode has none."""
        return self.policy.guidance.scale

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        pipe, album = task.pipe, Album()
        denoiser = denoiser_of(pipe)
        with (
            Guard(self.policy, vlm=self.backend(task), plugins=[album]) as guard,
            guard.attached(pipe),
            Meter(denoiser, len(prompts), branches_of(task)) as meter,
        ):
            delivered = call(task, seeds, [prompt.text for prompt in prompts])
        report = guard.last
        assert report is not None  # noqa: S101 (a guarded call always reports)
        steered = album.final or delivered  # without a final look there is no action after it
        return [
            _made(image, out, entry, evaluations, report.degraded)
            for image, out, entry, evaluations in zip(steered, delivered, report.images, meter.evaluations, strict=True)
        ]

    def backend(self, task: Task) -> Backend:
        """Return the backend that answers the guard's queries."""
        return asked(task.vlm)


def whole_list(policy: Policy) -> Policy:
    """Return the policy with the negative words of all categories in every category.

    Such a guard injects its negative prompt at the right time, but the prompt names all categories, not the right one.
    """
    words = tuple(dict.fromkeys(word for category in policy.categories for word in category.negative))
    categories = [category.model_copy(update={"negative": words}) for category in policy.categories]
    return _changed(policy, categories=categories)


def separately(policy: Policy) -> Policy:
    """Return the policy in mode ``separate``: every negative prompt is a separate term after guidance."""
    shipped = policy.resolved()
    guidance = {
        key: value for key, value in shipped["guidance"].items() if key not in {"mode", "attention", "escalate"}
    }
    explicit = {key: value for key, value in guidance.items() if value is not None}
    return type(policy).model_validate({**shipped, "guidance": {**explicit, "mode": "separate"}})


def retrying(policy: Policy) -> Policy:
    """Return the policy with retries, and with lower thresholds for the finished image, queried in several views."""
    categories = [
        category.model_copy(
            update={"still_present": Action.RETRY, "final_threshold": STRICTER * category.final_threshold}
        )
        for category in policy.categories
    ]
    queries = policy.queries.model_copy(update={"final": FinalLook(views=VIEWS)})
    return _changed(policy, categories=categories, queries=queries, retries=RETRIES)


def _scaled(policy: Policy, scale: float | None) -> Policy:
    if scale is None:
        return policy
    if policy.guidance.scale is None:
        raise DnpGuardError(
            f"policy {policy.name!r} has no scale to set in mode {policy.guidance.mode!r}",
            hint="Leave the scale out, or use mode 'separate'.",
        )
    categories = [category.model_copy(update={"guidance": None}) for category in policy.categories]
    return _changed(policy, guidance=policy.guidance.model_copy(update={"scale": float(scale)}), categories=categories)


def _changed(policy: Policy, **changes: Any) -> Policy:
    return Policy.model_validate({**{name: getattr(policy, name) for name in Policy.model_fields}, **changes})


def _made(image: Any, out: Any, report: ImageReport, evaluations: float, degraded: tuple[str, ...]) -> Made:
    intervened = bool(report.negatives) or report.decision in _ACTIONS
    steered = image if report.decision in _ACTIONS else out  # what is delivered is as it was steered
    return Made(
        steered,
        out,
        str(report.decision),
        len(report.queries),
        evaluations,
        intervened,
        degraded,
        report.attempts,
        report.withheld,
    )
