"""Let plugins make decisions stricter: with more of the policy's words, or a stricter action. Never milder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dnp_guard.generation import judge
from dnp_guard.generation.events import Degraded
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.plugins import Plugins
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, Step

_ACTIONS = tuple(action for action in Action if action is not Action.RETRY)
"""Actions that a plugin may call for; only the policy decides whether an image is made again."""


@dataclass(frozen=True, slots=True)
class Tightening:
    """Calls the plugins of a guard, which may make each decision stricter.

    Attributes:
        plugins: plugins of the guard.
        policy: the policy in force; plugins may add only words of its vocabulary.
    """

    plugins: Plugins
    policy: Policy

    def __call__(
        self, request: str, image: int, step: Step | None, decision: Decision
    ) -> tuple[Decision, Sequence[Degraded]]:
        """Return a decision at least as strict, and events for words and actions of plugins that were refused."""
        hook, faults = self.plugins.hook, []
        if decision.negative is not None and hook.dnp_guard_negative.get_hookimpls():
            shown = _copied(decision)
            offers = hook.dnp_guard_negative(
                findings=shown.findings,
                words=shown.negative.words if shown.negative else (),
                vocabulary=self.policy.vocabulary(),
            )
            words = [word for offer in offers for word in (offer if isinstance(offer, list | tuple) else [offer])]
            decision, refused = judge.with_words(self.policy, decision, words)
            fault = Degraded("plugin_word", step, "a plugin offered words outside the policy's vocabulary")
            faults += [fault] * len(refused)
        if not hook.dnp_guard_after_decision.get_hookimpls():
            return decision, faults
        actions = hook.dnp_guard_after_decision(request=request, image=image, step=step, decision=_copied(decision))
        known = [Action(action) for action in actions if action in _ACTIONS]
        if len(known) < len(actions):
            faults.append(Degraded("plugin_error", step, f"a plugin's action is none of {', '.join(_ACTIONS)}"))
        return judge.with_actions(decision, known), faults


def _copied(decision: Decision) -> Decision:
    """Copy a decision deeply, because a plugin could change even frozen values."""
    return replace(
        decision,
        negative=replace(decision.negative) if decision.negative is not None else None,
        findings=tuple(replace(finding) for finding in decision.findings),
        waived=tuple(replace(finding) for finding in decision.waived),
        probabilities=dict(decision.probabilities),
        would_negative=replace(decision.would_negative) if decision.would_negative is not None else None,
    )
