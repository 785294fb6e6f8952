"""The one guard of a worker (a process that runs an engine's model); without it the worker refuses to generate."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dnp_guard.errors import CannotSteer, DnpGuardError, RequestRefused, own
from dnp_guard.hosts.engines import tightening
from dnp_guard.hosts.engines.attestation import Attestation, say
from dnp_guard.hosts.engines.settings import EngineSettings, opened, read, state_of
from dnp_guard.policy import load_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.ranks import Ranks
    from dnp_guard.policy import Policy

    Make = Callable[[EngineSettings], Guard]
    Attach = Callable[["Worker", Any, Guard], object]

T = TypeVar("T")
_log = logging.getLogger("dnp_guard.engines")
WORKER = "_dnp_guard_worker"
"""Attribute of a guarded engine class that holds the :class:`Worker`."""


class Worker:
    """The guard of one worker process of an engine.

    The settings are read and the guard is made only when a model is loaded, so processes without a model need neither.

    Args:
        engine: name of the engine.
        make: makes the guard from the settings.

    Attributes:
        guard: the guard; None before a model is loaded, and after a model was loaded that cannot be guarded.
        ranks: the ranks (processes) that draw this worker's images together; None if it draws alone.
    """

    def __init__(self, engine: str, make: Make) -> None:
        self.guard: Guard | None = None
        self.ranks: Ranks | None = None
        self._engine = engine
        self._make = make
        self._settings: EngineSettings | None = None
        self._stricter: dict[str, Policy] = {}
        self._told: Attestation | None = None

    def take(self, attach: Callable[[Guard], object]) -> None:
        """Guard a loaded model, and report for the HTTP server whether that worked.

        Args:
            attach: attaches the guard to the model.

        Raises:
            DnpGuardError: the model cannot be guarded, and the settings do not allow it to be served anyway.
        """
        try:
            guard = self._made()
            attach(guard)
            self._check_stricter(guard)
            self.guard = guard
            self.attest()
        except Exception as error:
            self.guard = None
            self._failed(error, "unguarded" if opened(os.environ) else "refusing")
            if not opened(os.environ):
                raise

    def check(self) -> bool:
        """Return whether a request would be guarded now.

        Raises:
            CannotSteer: there is no guard, and the settings do not allow requests to be served anyway.
        """
        if self.guard is not None:
            self.attest()
            return True
        if not opened(os.environ):
            raise CannotSteer(
                f"this worker of {self._engine} has no guard and refuses to generate",
                hint="See its log for why; `dnp-guard doctor --engine URL` asks every worker.",
            )
        return False

    def agree(self, place: object, check: Callable[[], T]) -> T:
        """Run a check in all ranks (processes) that draw together, and return this rank's result if none fails."""
        if self.ranks is None:
            return check()
        try:
            return self.ranks.agree(place, check)
        except CannotSteer as error:
            if self.ranks.broken:
                self._failed(error, "refusing")
            raise

    def tightened(self, request: Any) -> AbstractContextManager[object]:
        """Tighten the guard for the generations in a ``with`` block, as a request demands.

        Args:
            request: the request's demands on the guard; see :mod:`dnp_guard.hosts.engines.tightening`.

        Raises:
            RequestRefused: the demands cannot be met, or this worker is not guarded.
        """
        if self.guard is not None:
            return tightening.tightened(self.guard, self._stricter, request)
        if request is not None:
            raise RequestRefused("this worker is not guarded", hint="Ask nothing of its guard.")
        return nullcontext()

    def attest(self) -> None:
        """Write this worker's report for the HTTP server, if the policy in force changed since the last report."""
        if self.guard is None or self._settings is None:
            return
        policy = self.guard.policy
        now = Attestation(
            self._engine,
            "guarded",
            os.getpid(),
            policy=policy.name,
            revision=str(policy.revision),
            digest=policy.digest,
            mode=policy.mode,
            vlm=self._settings.vlm,
        )
        if now != self._told:
            say(self._settings.state, now)
            self._told = now

    def _made(self) -> Guard:
        if self.guard is not None:
            return self.guard
        self._settings = read(os.environ)
        return self._make(self._settings)

    def _check_stricter(self, guard: Guard) -> None:
        """Read the policies that requests may name, and check that the guard can apply each of them."""
        stricter: dict[str, Policy] = {}
        for spec in self._settings.stricter if self._settings is not None else ():
            policy = load_policy(spec)
            if stricter.setdefault(policy.name, policy) is not policy:
                raise DnpGuardError(f"two policies of `stricter` have the name {policy.name!r}", hint="Rename one.")
            with guard.tightened(policy):
                pass
        self._stricter = stricter

    def _failed(self, error: Exception, serving: Literal["unguarded", "refusing"]) -> None:
        reason = str(error) if own(error) else f"{type(error).__name__}: {error}"
        _log.error("%s: this worker is not guarded and is %s: %s", self._engine, serving, reason)
        self._told = Attestation(self._engine, serving, os.getpid(), reason=reason)
        try:
            say(state_of(os.environ), self._told)
        except DnpGuardError:
            _log.exception("the report of this worker cannot be written")


def guard_class(worker: Worker, kind: Any, load: str, runs: tuple[str, ...], attach: Attach) -> None:
    """Patch an engine's class: it guards the model that it loads, and checks for the guard before every run.

    Args:
        worker: the worker of this process.
        kind: the engine's class that loads and runs a worker's model.
        load: name of the method that loads a model into the attribute ``pipeline``.
        runs: names of the methods that generate.
        attach: attaches a guard to a worker's model; raises if the model cannot be guarded.

    Raises:
        AttributeError: the class lacks one of the methods. The import of its module then fails, which ends the worker.
    """
    if WORKER in kind.__dict__:
        return  # a process may load its plugins again
    for name in runs:
        setattr(kind, name, _checked(worker, getattr(kind, name)))
    setattr(kind, load, _loading(worker, getattr(kind, load), attach))
    setattr(kind, WORKER, worker)


def _loading(worker: Worker, load: Any, attach: Attach) -> Any:
    @wraps(load)
    def loading(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        if getattr(self, "pipeline", None) is not None:  # a user's own pipeline is loaded later
            worker.take(partial(attach, worker, self.pipeline))
        return result

    return loading


def _checked(worker: Worker, run: Any) -> Any:
    @wraps(run)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        worker.agree("check", worker.check)
        return run(self, *args, **kwargs)

    return checked
