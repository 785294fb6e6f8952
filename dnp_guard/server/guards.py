"""The guards of a service: one per tenant, all in front of the same backend."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from dnp_guard.errors import DnpGuardError
from dnp_guard.guard import Guard
from dnp_guard.policy import load_policy, shipped
from dnp_guard.server.problems import Refusal
from dnp_guard.telemetry.metrics import Metrics
from dnp_guard.vlm.base import as_backend
from dnp_guard.vlm.combined import composed

if TYPE_CHECKING:
    from dnp_guard.policy import Policy
    from dnp_guard.server.settings import Settings
    from dnp_guard.server.tokens import Grant
    from dnp_guard.vlm.base import Asked

_log = logging.getLogger("dnp_guard.server")


class Guards:
    """Makes a tenant's guard when it is first needed.

    All guards query the backend through one desk, which lets them take turns; see :class:`~dnp_guard.vlm.desk.Desk`.

    Args:
        settings: settings of the service.
        backend: the backend to query; built from the settings by default.

    Attributes:
        registry: Prometheus registry for the metrics of all guards.

    Raises:
        VlmUnavailable: the backend cannot be built.
        MissingExtra: the backend computes in this process, and the extra ``local`` is not installed.
    """

    def __init__(self, settings: Settings, backend: Asked | None = None) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, tenants=settings.metrics_tenants)
        self._settings = settings
        self._backend = (
            as_backend(backend)
            if backend is not None
            else composed(settings.vlm, settings.second_opinion, settings.final_vlm)
        )
        self._lock = Lock()
        self._of: dict[str | None, Guard] = {}
        self._stricter: dict[str, Policy] = {}

    def of(self, tenant: str | None) -> Guard:
        """Return the guard of a tenant, made at the first call; None stands for callers without a tenant.

        Raises:
            DnpGuardError: there is no policy for the tenant, or it cannot be put in force.
        """
        with self._lock:
            if tenant not in self._of:
                guard = Guard(
                    self._settings.policy,
                    vlm=self._backend,
                    audit=list(self._settings.audit),
                    tenant=tenant,
                    registry=self.registry,
                    require_signature=self._settings.require_signature,
                )
                if self._settings.watch:
                    guard.watch()
                self._of[tenant] = guard
            return self._of[tenant]

    def stricter(self, grant: Grant) -> dict[str, Policy]:
        """Return the stricter policies that a token's sessions may request, by name.

        Raises:
            PolicyError: a policy is invalid.
        """
        policies = [self._loaded(spec) for spec in grant.policies]
        return {policy.name: policy for policy in policies}

    def granted(self, grant: Grant, name: str | None) -> tuple[Guard, Policy | None]:
        """Return the guard of a token's tenant, and the stricter policy that a session requests by name.

        Args:
            grant: the permissions of the token.
            name: name of the requested policy; None, or the name of the guard's own policy, for no stricter one.

        Raises:
            Refusal: a policy is missing or invalid, or the token does not allow the named one.
        """
        try:
            guard, stricter = self.of(grant.tenant), self.stricter(grant)
            own = guard.policy.name
        except DnpGuardError as error:
            _log.warning("token %s: %s", grant.name or grant.sha256[:12], error)
            raise Refusal("unready", "The service has no valid policy for this token; its log says more.") from error
        if name is not None and name not in {own, *stricter}:
            raise Refusal("policy", f"The token is not for a policy named {name!r}.")
        return guard, stricter.get(name) if name is not None else None

    def _loaded(self, spec: str) -> Policy:
        if spec not in self._stricter:
            file = self._settings.token_file
            path = spec if spec in shipped() or file is None else file.parent / Path(spec)
            self._stricter[spec] = load_policy(path)
        return self._stricter[spec]

    def unready(self) -> str:
        """Return the reason why no generation can be guarded now; empty if everything works."""
        states = [member.states().values() for member in self._backend.members]
        if any(urls and all(state == "open" for state in urls) for urls in states):
            return "the vision-language model has failed too often and is paused"
        for guard in list(self._of.values()):
            try:
                _ = guard.policy
            except DnpGuardError as error:
                return f"no valid policy: {error.message}"
            if not guard.keeps_up:
                return "the audit log accepts no records, so they wait"
        return "" if self._of else "no policy is loaded"

    def close(self) -> None:
        """Close every guard, and then the backend."""
        guards = list(self._of.values())
        for guard in guards:
            guard.settle()
        for guard in guards:
            guard.close()
        self._backend.close()
