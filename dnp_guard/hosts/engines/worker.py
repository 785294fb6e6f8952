"""The one guard of a worker. Until it is there, and where it cannot be, the worker refuses."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError, own
from dnp_guard.hosts.engines.attestation import Attestation, say
from dnp_guard.hosts.engines.settings import EngineSettings, opened, read, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.guard import Guard

    Make = Callable[[EngineSettings], Guard]

_log = logging.getLogger("dnp_guard.engines")


class Worker:
    """The guard of one process of an engine.

    The settings are read, and the guard is made, when a model is loaded: an engine's other processes need neither.

    Args:
        engine: its name.
        make: makes the guard that the settings describe.

    Attributes:
        guard: None until a model is loaded, and where it cannot be guarded.
    """

    def __init__(self, engine: str, make: Make) -> None:
        self.guard: Guard | None = None
        self._engine = engine
        self._make = make
        self._settings: EngineSettings | None = None
        self._told: Attestation | None = None

    def take(self, attach: Callable[[Guard], object]) -> None:
        """Guard a model that was loaded.

        Args:
            attach: puts the guard on it.

        Raises:
            DnpGuardError: it cannot be guarded, and the settings do not say to serve it all the same.
        """
        try:
            guard = self._made()
            attach(guard)
            self.guard = guard
            self.attest()
        except Exception as error:
            self.guard = None
            self._failed(error)
            if not opened(os.environ):
                raise

    def check(self) -> bool:
        """Whether what is asked for now is guarded.

        Raises:
            CannotSteer: it is not, and the settings do not say to serve it all the same.
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

    def attest(self) -> None:
        """Say what is in force, where it is not what was said last."""
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

    def _failed(self, error: Exception) -> None:
        serving: Any = "unguarded" if opened(os.environ) else "refusing"
        reason = str(error) if own(error) else f"{type(error).__name__}: {error}"
        _log.error("%s: this worker is not guarded and is %s: %s", self._engine, serving, reason)
        self._told = Attestation(self._engine, serving, os.getpid(), reason=reason)
        try:
            say(state_of(os.environ), self._told)
        except DnpGuardError:
            _log.exception("what this worker is doing cannot be told")
