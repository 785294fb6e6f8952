"""Select the policy in force for a guard, and report its changes in audit records and metrics."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from dnp_guard.audit.events import ExceptionEnded, ExceptionStarted, GuardDegraded, PolicyLoaded, PolicyRejected
from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.generation import fields
from dnp_guard.policy import Policy, load_policy
from dnp_guard.policy.force import admission
from dnp_guard.policy.force.rollout import Narrowing
from dnp_guard.policy.force.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dnp_guard.audit.events import Event
    from dnp_guard.audit.write.recorder import Recorder
    from dnp_guard.policy import PolicyException, Store
    from dnp_guard.policy.force.rollout import Rollout
    from dnp_guard.telemetry import Metrics
    from dnp_guard.vlm.base import BackendInfo

_log = logging.getLogger(__name__)
_REASONS = 5
"""Largest number of a rejected policy's problems to record."""


class InForce:
    """Selects the policy of a generation, and records and counts the changes of the policy in force.

    Args:
        source: the policy, path or store that the guard was created with.
        rollout: reads the source, and puts its policies in force.
        admit: raises an error if the guard cannot enforce a policy.
        info: description of the backend.
        recorder: writes the audit records of the guard.
        metrics: metrics of the guard.
    """

    def __init__(
        self,
        source: str | Path | Policy | Store,
        rollout: Rollout,
        admit: Callable[[Policy], None],
        info: BackendInfo,
        recorder: Recorder,
        metrics: Metrics,
    ) -> None:
        self._source, self._rollout, self._admit = source, rollout, admit
        self._info, self._recorder, self._metrics = info, recorder, metrics
        self._narrowing: ContextVar[Narrowing | None] = ContextVar(f"dnp_guard.narrowing.{id(self)}", default=None)
        self._watch: Watch | None = None
        self._excepted: tuple[PolicyException, ...] = ()
        self._turning = Lock()

    @property
    def policy(self) -> Policy:
        """The policy for a generation that this thread or asyncio task starts now."""
        return self._rollout.current(self._narrowing.get())

    @property
    def standing(self) -> Policy:
        """The policy to name in records; unlike that of :attr:`policy`, its signature may have expired."""
        return self._rollout.current(self._narrowing.get(), expired=True)

    @contextmanager
    def tightened(self, policy: str | Path | Policy | None, region: str | None, surface: str | None) -> Iterator[None]:
        """Tighten the policy inside a ``with`` block; see :meth:`dnp_guard.Guard.tightened`."""
        before = self._narrowing.get() or Narrowing()
        more = (policy if isinstance(policy, Policy) else load_policy(policy),) if policy is not None else ()
        for addition in more:
            self._admit(addition)
        narrowing = Narrowing((*before.policies, *more), region or before.region, surface or before.surface)
        self._admit(self._rollout.current(narrowing))
        token = self._narrowing.set(narrowing)
        try:
            yield
        finally:
            self._narrowing.reset(token)

    def reload(self) -> bool:
        """Read the policy again, and put it in force if acceptable; see :meth:`dnp_guard.Guard.reload`."""
        try:
            changed = self._rollout.reload()
        except Exception as error:  # noqa: BLE001 (whatever is wrong with a new policy, the old one stays)
            self._metrics.reload("rejected")
            problems = error.problems if isinstance(error, PolicyError) else (error,)
            reason = "; ".join(str(problem).replace("\n", " ") for problem in problems[:_REASONS])
            self.note(PolicyRejected(reason=reason))
            _log.warning("a policy was not put in force: %s", reason)
            return False
        if changed:
            self._metrics.reload("loaded")
            if doubt := self._rollout.doubt:
                _log.warning("a policy is in force, but %s", doubt)
            self.tell(self._rollout.doubt)
        return changed

    def turn(self) -> None:
        """Record the exceptions in the policy that have begun or ended since the last call."""
        with self._turning:
            before, self._excepted = self._excepted, self._rollout.selected().exceptions
            ended = [exception for exception in before if exception not in self._excepted]
            started = [exception for exception in self._excepted if exception not in before]
            if ended or started:
                self._show(self.standing)
        policy = fields.policy(self.standing)
        for exception in ended:
            recorded = fields.exception(exception)
            self.note(ExceptionEnded(policy=policy, exception=recorded, reason=exception.reason))
        for exception in started:
            recorded = fields.exception(exception)
            self.note(ExceptionStarted(policy=policy, exception=recorded, reason=exception.reason))

    def watch(self, every: float) -> None:
        """Reload the policy when its file or folder changes; see :meth:`dnp_guard.Guard.watch`."""
        if not isinstance(self._source, str | Path):
            raise DnpGuardError(
                "a policy given as a value cannot be watched", hint="Pass the path of a file or folder."
            )
        if self._watch is None:
            for problem in self._rollout.untested():
                _log.warning("a reload will refuse this: %s", problem)
            self._watch = Watch(self._rollout.path, self.reload, every, lambda: self._rollout.store.inputs, self.turn)
            self._watch.start()

    def tell(self, reason: str | None = None) -> None:
        """Record the policy in force, and its categories whose thresholds were measured on another model."""
        policy = self.policy
        self._show(policy)
        self.note(PolicyLoaded(policy=fields.policy(policy), loaded=self._rollout.origin, reason=reason))
        for category in admission.measured_on_another(policy, self._info.name, self._info.revision):
            self._metrics.degraded("vlm_uncalibrated")
            reason = f"vlm_uncalibrated: {category.id!r} was measured on {category.calibration}"
            self.note(GuardDegraded(reason=reason))
        self.turn()

    def note(self, event: Event) -> None:
        """Record an event outside a generation, and wait until the record is stored."""
        self.write(event)
        self._recorder.settle()

    def write(self, event: Event) -> None:
        """Record an event outside a generation, without waiting until the record is stored."""
        policy = self.standing
        self._recorder.emit(event, required=policy.audit.required, policy=fields.policy(policy))

    def plugin_failed(self, plugin: str, hook: str, error: BaseException) -> None:
        """Count and record that a plugin's hook raised an error."""
        self._metrics.degraded("plugin_error")
        self.write(GuardDegraded(reason=f"plugin_error: {plugin} raised in {hook}: {type(error).__name__}"))

    def close(self) -> None:
        """Stop watching the file or folder of the policy."""
        if self._watch is not None:
            self._watch.close()

    def _show(self, policy: Policy) -> None:
        self._metrics.policy_info(policy.name, policy.revision, policy.digest, policy.mode)
