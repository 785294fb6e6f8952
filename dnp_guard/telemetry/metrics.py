"""Prometheus metrics. Nothing is registered when this is imported."""

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
    """The metrics of one registry.

    Args:
        registry: where they are registered; two ``Metrics`` of one registry count together. None for
            a private one.
        tenant: whom these are about.
        tenants: how many tenants are told apart by a label of their own, those that come first; all others are
            ``other``. The first ``Metrics`` of a registry says it for all; 0 for no such label.

    Attributes:
        registry: where they are registered.

    Raises:
        DnpGuardError: the registry has metrics of these names that are not this package's, or the folder in which
            several processes count together is not there.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, tenant: str | None = None, tenants: int = 0
    ) -> None:
        folder = os.environ.get(_FOLDER)
        if folder is not None and not Path(folder).is_dir():
            raise DnpGuardError(f"{folder}: there is no such folder, which {_FOLDER} names", hint=f"mkdir -p {folder}")
        self.registry = CollectorRegistry() if registry is None else registry
        with _registering:
            if self.registry not in _collectors:
                _collectors[self.registry] = _Collectors(self.registry, tenants)
            self._of = _collectors[self.registry]
            self._tenant = self._of.label(tenant)

    @harmless
    def queries(self, policy: str, outcome: str, images: int = 1) -> None:
        """Count queries, one an image; the outcome is ``answered``, ``skipped`` or ``failed``."""
        self._of.queries.labels(policy, outcome, *self._tenant).inc(images)

    @harmless
    def query_seconds(self, seconds: float) -> None:
        """Observe how long an answer took."""
        self._of.query_seconds.observe(seconds)

    @harmless
    def negative(self, policy: str, category: str) -> None:
        """Count a negative injected into one image, under the first category it is made from."""
        self._of.negatives.labels(policy, category, *self._tenant).inc()

    @harmless
    def generation(self, policy: str, decision: str) -> None:
        """Count one finished image by its outcome."""
        self._of.generations.labels(policy, decision, *self._tenant).inc()

    @harmless
    def degraded(self, reason: str) -> None:
        """Count that the guard could not do its job at some point; the reason is one of the program's words."""
        self._of.degraded.labels(reason).inc()

    @contextmanager
    def overhead(self, stage: str) -> Iterator[None]:
        """Time what the guard adds, in one of the stages of :data:`dnp_guard.telemetry.names.STAGES`."""
        start = perf_counter()
        try:
            yield
        finally:
            self._observe(stage, perf_counter() - start)

    @harmless
    def policy_info(self, name: str, revision: str, digest: str, mode: str, *, narrowed: bool = False) -> None:
        """Show the policy in force; what was shown of an earlier revision of the same name goes, here.

        What may be counted under it begins at 0, so that the first failure too is an increase.

        Args:
            name: of the policy.
            revision: of its text.
            digest: of what is in force.
            mode: of the policy.
            narrowed: whether it is in force for some calls only, beside the one in force for all.
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
        """Count a category seen in a look: by its action, or ``waived``, or ``shadow`` where it only records."""
        self._of.findings.labels(policy, category, outcome, *self._tenant).inc()

    @harmless
    def still_present(self, policy: str, category: str) -> None:
        """Count an image that was steered away from a category and shows it at the final look."""
        self._of.still_present.labels(policy, category, *self._tenant).inc()

    @harmless
    def input(self, policy: str, action: str) -> None:
        """Count a picture that a request brought, by what became of the request for it: ``pass`` or ``block``."""
        self._of.inputs.labels(policy, action, *self._tenant).inc()

    @harmless
    def retry(self, policy: str, outcome: str) -> None:
        """Count a further attempt at an image by how it ended: :data:`dnp_guard.telemetry.names.RETRY_OUTCOMES`."""
        self._of.retries.labels(policy, outcome, *self._tenant).inc()

    @harmless
    def checkpoint(self, timestamp: float) -> None:
        """Show when the latest checkpoint of an audit log was written, in seconds since 1970."""
        self._of.checkpoint.set(timestamp)

    @harmless
    def reload(self, result: str) -> None:
        """Count a reload of the policy by its result."""
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
                names.QUERIES, "Queries, one an image.", [names.POLICY, names.OUTCOME, *more], registry=registry
            )
            self.query_seconds = Histogram(
                names.QUERY_SECONDS, "Time to an answer.", buckets=names.QUERY_BUCKETS, registry=registry
            )
            self.negatives = Counter(
                names.NEGATIVES,
                "Negatives injected, under the first category seen.",
                [names.POLICY, names.CATEGORY, *more],
                registry=registry,
            )
            self.generations = Counter(
                names.GENERATIONS, "Images finished.", [names.POLICY, names.DECISION, *more], registry=registry
            )
            self.degraded = Counter(
                names.DEGRADED, "Times the guard could not do its job.", [names.REASON], registry=registry
            )
            self.overhead = Histogram(
                names.OVERHEAD,
                "Time the guard adds.",
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
                "Categories seen, one per look and image, by the category's action, or waived, or shadow.",
                [names.POLICY, names.CATEGORY, names.OUTCOME, *more],
                registry=registry,
            )
            self.still_present = Counter(
                names.STILL_PRESENT,
                "Images steered away from a category and showing it at the final look.",
                [names.POLICY, names.CATEGORY, *more],
                registry=registry,
            )
            self.inputs = Counter(
                names.INPUTS,
                "Pictures that requests brought, by whether the request went on.",
                [names.POLICY, names.ACTION, *more],
                registry=registry,
            )
            self.retries = Counter(
                names.RETRIES,
                "Further attempts at an image, by how they ended.",
                [names.POLICY, names.OUTCOME, *more],
                registry=registry,
            )
            self.checkpoint = Gauge(
                names.CHECKPOINT,
                "When the latest audit checkpoint was written; 0 for never.",
                registry=registry,
                multiprocess_mode="max",
            )
            self.reloads = Counter(names.POLICY_RELOADS, "Reloads of the policy.", [names.RESULT], registry=registry)
        except ValueError as error:
            raise DnpGuardError(
                f"the Prometheus registry has other metrics of this package's names: {error}",
                hint="Pass registry= a registry of its own.",
            ) from error
        self._shown: WeakKeyDictionary[Metrics, dict[str, _Info]] = WeakKeyDictionary()

    def label(self, tenant: str | None) -> tuple[str, ...]:
        """The label of a tenant; none where tenants have none."""
        if not self._most:
            return ()
        if tenant is not None and (tenant in self._tenants or len(self._tenants) < self._most):
            self._tenants.add(tenant)
            return (tenant,)
        return (names.OTHER if tenant is not None else "",)

    def show(self, owner: Metrics, info: _Info, *, narrowed: bool) -> bool:
        """Show a policy for one guard, beside those of others; whether it was not shown by it before."""
        with _registering:
            own = self._shown.setdefault(owner, {})
            if info in own.values() or (narrowed and len(own) >= _SHOWN):
                return False
            replaced = [] if narrowed else [key for key in own if key == info[0] or key.startswith("digest ")]
            gone = [own.pop(key) for key in replaced]
            own[f"digest {info[2]}" if narrowed else info[0]] = info
            for before in gone:
                if not any(before in others.values() for others in self._shown.values()):
                    self.info.labels(*before).set(0)  # all that a process among several can do
                    self.info.remove(*before)
            self.info.labels(*info).set(1)
            return True


_Info = tuple[str, ...]
"""Name, revision, digest and mode of a policy, and the tenant where tenants have a label."""

_SHOWN = 100
"""Policies that one guard shows at most; regions and surfaces come from callers."""

_registering = Lock()
_collectors: WeakKeyDictionary[CollectorRegistry, _Collectors] = WeakKeyDictionary()
