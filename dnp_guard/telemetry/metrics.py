"""Prometheus metrics of the guard. Importing this module registers nothing."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dnp_guard.errors import DnpGuardError
from dnp_guard.telemetry import names
from dnp_guard.telemetry.harmless import harmless
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The guard's metrics in one Prometheus registry, for one tenant.

    Args:
        registry: registry of the metrics, which several ``Metrics`` can share; None for a new one.
        tenant: tenant that the metrics are about.
        tenants: number of tenants that get a label value of their own; later ones share ``other``. With 0 there is no
            label. The number given to the first ``Metrics`` of a registry applies to all.

    Attributes:
        registry: registry of the metrics.

    Raises:
        DnpGuardError: the registry has other metrics of these names, or the folder for metrics of several processes
            does not exist.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, tenant: str | None = None, tenants: int = 0
    ) -> None:
        folder = os.environ.get(_FOLDER)
        if folder is not None and not Path(folder).is_dir():
            raise DnpGuardError(f"{folder}, the folder in {_FOLDER}, does not exist", hint=f"mkdir -p {folder}")
        self.registry = CollectorRegistry() if registry is None else registry
        with _registering:
            if self.registry not in _collectors:
                _collectors[self.registry] = _Collectors(self.registry, tenants)
            self._of = _collectors[self.registry]
            self._tenant = self._of.label(tenant)

    @harmless
    def queries(self, policy: str, outcome: str, images: int = 1) -> None:
        """Count a query once per image; the outcome is ``answered``, ``skipped`` or ``failed``."""
        self._of.queries.labels(policy, outcome, *self._tenant).inc(images)

    @harmless
    def query_seconds(self, seconds: float) -> None:
        """Add the duration of one query, until the model answered, to the histogram."""
        self._of.query_seconds.observe(seconds)

    @harmless
    def negative(self, policy: str, category: str) -> None:
        """Count a negative prompt injected for one image, under one of the categories that it steers away from."""
        self._of.negatives.labels(policy, category, *self._tenant).inc()

    @harmless
    def generation(self, policy: str, decision: str) -> None:
        """Count one finished image by its outcome, such as ``steered`` or ``blocked``."""
        self._of.generations.labels(policy, decision, *self._tenant).inc()

    @harmless
    def degraded(self, reason: str) -> None:
        """Count a case in which the guard could not do its job; the reason is one of a fixed set of words."""
        self._of.degraded.labels(reason).inc()

    @contextmanager
    def overhead(self, stage: str) -> Iterator[None]:
        """Time the ``with`` block as a stage of the guard's work, one of :data:`dnp_guard.telemetry.names.STAGES`."""
        start = perf_counter()
        try:
            yield
        finally:
            self._observe(stage, perf_counter() - start)

    @harmless
    def policy_info(self, name: str, revision: str, digest: str, mode: str, *, narrowed: bool = False) -> None:
        """Set ``dnp_guard_policy_info`` to the policy in force, in place of an earlier revision of the same name.

        Set the policy's counters to 0 if they are new, so that Prometheus sees even the first failure as an increase.

        Args:
            name: name of the policy.
            revision: revision of the policy.
            digest: digest of the policy in force.
            mode: mode of the policy.
            narrowed: whether it is the policy of one generation, such as one narrowed to its region; the gauge shows it
                beside the policy for all generations.
        """
        if not self._of.show(self, (name, revision, digest, mode, *self._tenant), narrowed=narrowed):
            return
        for decision in Outcome:
            self._of.generations.labels(name, decision, *self._tenant)
        for outcome in names.OUTCOMES:
            self._of.queries.labels(name, outcome, *self._tenant)
        for end in names.ENDS:
            self._of.sessions.labels(name, end, *self._tenant)
        for reason in names.AUDIT_REASONS:
            self._of.degraded.labels(reason)
        for result in names.RELOADS:
            self._of.reloads.labels(result)

    @harmless
    def session(self, policy: str, end: str) -> None:
        """Count a generation by how it ended, one of :data:`dnp_guard.telemetry.names.ENDS`."""
        self._of.sessions.labels(policy, end, *self._tenant).inc()

    @harmless
    def finding(self, policy: str, category: str, outcome: str) -> None:
        """Count a category that a query found in an image.

        The outcome is the category's action in the policy, or ``waived`` if an allowed case excused the finding, or
        ``shadow`` if the policy only records it.
        """
        self._of.findings.labels(policy, category, outcome, *self._tenant).inc()

    @harmless
    def still_present(self, policy: str, category: str) -> None:
        """Count an image that was steered away from a category but still shows it when finished."""
        self._of.still_present.labels(policy, category, *self._tenant).inc()

    @harmless
    def input(self, policy: str, action: str) -> None:
        """Count an input picture, as of image-to-image, by its effect on the request, ``pass`` or ``block``."""
        self._of.inputs.labels(policy, action, *self._tenant).inc()

    @harmless
    def retry(self, policy: str, outcome: str) -> None:
        """Count a new attempt at an image by its outcome, one of :data:`dnp_guard.telemetry.names.RETRY_OUTCOMES`."""
        self._of.retries.labels(policy, outcome, *self._tenant).inc()

    @harmless
    def checkpoint(self, timestamp: float) -> None:
        """Set the gauge to the time of the audit log's latest checkpoint, in seconds since 1970."""
        self._of.checkpoint.set(timestamp)

    @harmless
    def reload(self, result: str) -> None:
        """Count a reload of the policy by its result, ``loaded`` or ``rejected``."""
        self._of.reloads.labels(result).inc()

    @harmless
    def _observe(self, stage: str, seconds: float) -> None:
        self._of.overhead.labels(stage).observe(seconds)


class _Collectors:
    def __init__(self, registry: CollectorRegistry, tenants: int) -> None:
        more = [names.TENANT] if tenants else []
        self._most, self._tenants = tenants, set[str]()
        try:
            self.queries = Counter(
                names.QUERIES, "Queries, counted per image.", [names.POLICY, names.OUTCOME, *more], registry=registry
            )
            self.query_seconds = Histogram(
                names.QUERY_SECONDS, "Time to an answer.", buckets=names.QUERY_BUCKETS, registry=registry
            )
            self.negatives = Counter(
                names.NEGATIVES,
                "Negatives injected, by their first category.",
                [names.POLICY, names.CATEGORY, *more],
                registry=registry,
            )
            self.generations = Counter(
                names.GENERATIONS, "Images finished.", [names.POLICY, names.DECISION, *more], registry=registry
            )
            self.degraded = Counter(
                names.DEGRADED, "Times that the guard could not do its job.", [names.REASON], registry=registry
            )
            self.overhead = Histogram(
                names.OVERHEAD,
                "Time that the guard adds.",
                [names.STAGE],
                buckets=names.OVERHEAD_BUCKETS,
                registry=registry,
            )
            self.info = Gauge(
                names.POLICY_INFO,
                "The policy in force.",
                [*names.INFO, *more],
                registry=registry,
                multiprocess_mode="livemax",
            )
            self.sessions = Counter(
                names.SESSIONS, "Generations ended.", [names.POLICY, names.RESULT, *more], registry=registry
            )
            self.findings = Counter(
                names.FINDINGS,
                "Categories found, counted per query and image, by the category's action, waived, or shadow.",
                [names.POLICY, names.CATEGORY, names.OUTCOME, *more],
                registry=registry,
            )
            self.still_present = Counter(
                names.STILL_PRESENT,
                "Images steered away from a category that show it at the final look.",
                [names.POLICY, names.CATEGORY, *more],
                registry=registry,
            )
            self.inputs = Counter(
                names.INPUTS,
                "Pictures from requests, by whether the request continued.",
                [names.POLICY, names.ACTION, *more],
                registry=registry,
            )
            self.retries = Counter(
                names.RETRIES,
                "Retries of an image, by outcome.",
                [names.POLICY, names.OUTCOME, *more],
                registry=registry,
            )
            self.checkpoint = Gauge(
                names.CHECKPOINT,
                "Time of the latest audit checkpoint; 0 for never.",
                registry=registry,
                multiprocess_mode="max",
            )
            self.reloads = Counter(names.POLICY_RELOADS, "Reloads of the policy.", [names.RESULT], registry=registry)
        except ValueError as error:
            raise DnpGuardError(
                f"the Prometheus registry has other metrics with this package's names: {error}",
                hint="Pass another registry as registry=.",
            ) from error
        self._shown: WeakKeyDictionary[Metrics, dict[str, _Info]] = WeakKeyDictionary()

    def label(self, tenant: str | None) -> tuple[str, ...]:
        """Return the value of a tenant's label, as a tuple of one; empty if the metrics have no tenant label."""
        if not self._most:
            return ()
        if tenant is not None and (tenant in self._tenants or len(self._tenants) < self._most):
            self._tenants.add(tenant)
            return (tenant,)
        return (names.OTHER if tenant is not None else "",)

    def show(self, owner: Metrics, info: _Info, *, narrowed: bool) -> bool:
        """Set the info gauge for one guard's policy, beside other guards' policies; return whether it is new."""
        with _registering:
            own = self._shown.setdefault(owner, {})
            if info in own.values() or (narrowed and len(own) >= _SHOWN):
                return False
            replaced = [] if narrowed else [key for key in own if key == info[0] or key.startswith("digest ")]
            gone = [own.pop(key) for key in replaced]
            own[f"digest {info[2]}" if narrowed else info[0]] = info
            for before in gone:
                if not any(before in others.values() for others in self._shown.values()):
                    self.info.labels(*before).set(0)  # in multiprocess mode, remove() leaves the value in the file
                    self.info.remove(*before)
            self.info.labels(*info).set(1)
            return True


_Info = tuple[str, ...]
"""Name, revision, digest and mode of a policy, and the tenant if tenants have a label."""

_SHOWN = 100
"""Most policies of one guard that the info gauge shows, since the number of callers' regions is not limited."""

_registering = Lock()
_collectors: WeakKeyDictionary[CollectorRegistry, _Collectors] = WeakKeyDictionary()
