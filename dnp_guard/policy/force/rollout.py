"""The policies of one guard: which one is in force for which caller, and how a reload replaces them.

A reload replaces the whole store (all policies of the guard) in one assignment; a generation keeps the policy that it
started with.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError, PolicyError, Problem
from dnp_guard.policy.compare.merge import strictest
from dnp_guard.policy.force.approvals import approvals, loosened, unapproved
from dnp_guard.policy.force.store import Selected, Store, as_store, is_folder
from dnp_guard.policy.model.policy import Policy
from dnp_guard.policy.read.testfile import ENDING, load_tests
from dnp_guard.policy.rehearsal.cases import run_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dnp_guard.policy.force.signing import Signed, Verifier
    from dnp_guard.policy.rehearsal.cases import Viewer


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The policies that one call adds to the policy in force; they can only tighten it.

    Attributes:
        policies: policies to merge; where they differ, the strictest value wins.
        region: region of the caller; None if unknown.
        surface: surface of the caller, such as a product; None if unknown.
    """

    policies: tuple[Policy, ...] = ()
    region: str | None = None
    surface: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the policies in force come from, as audit records say under ``loaded``.

    Attributes:
        before: digest of the previous policy; None for the first.
        source: path or shipped name; None for a policy given as a value.
        signer: public key of the verified signature, in base64; None if no signature is required.
        serial: serial number in the signature, which grows with every issue.
        author: author of the policy, from the signature.
        approver: person who approved the change; None if nobody did.
        reason: reason for the approval.
        loosened: whether the change lets more images through, or might; None for the first policy.
        taxonomy: entry of the categories in published lists of hazards, by category id; None if no category has one.
    """

    before: str | None = None
    source: str | None = None
    signer: str | None = None
    serial: int | None = None
    author: str | None = None
    approver: str | None = None
    reason: str | None = None
    loosened: bool | None = None
    taxonomy: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class _InForce:
    """A store in force, with its origin, a warning about it, and a cache of the policies by region and surface."""

    store: Store
    origin: Origin
    doubt: str | None = None
    expires: datetime | None = None
    selected: dict[tuple[str | None, str | None], Selected] = field(default_factory=dict)


class Rollout:
    """Holds the policies in force, and replaces them on a reload.

    Args:
        source: a store, a policy, a path or the name of a shipped policy; read again on a reload.
        store: the policies read from the source.
        tenant: tenant that the guard serves.
        admit: raises if the guard cannot enforce a policy.
        view: queries a backend about the images of tests.
        verify: checks the signature of a store; None if no signature is required.
        clock: returns the current time with its zone.

    Raises:
        PolicyError: a policy is invalid, or no policy is for this tenant.
    """

    def __init__(
        self,
        source: str | Path | Policy | Store,
        store: Store,
        tenant: str | None,
        *,
        admit: Callable[[Policy], None],
        view: Viewer,
        verify: Verifier | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source, self._tenant = source, tenant
        self._admit, self._view, self._verify, self._clock = admit, view, verify, clock
        self._check(store)
        self._now = _InForce(store, Origin())
        admit(self.current())  # the merged policy too
        self._now = self._taken(self._now, None)

    @property
    def store(self) -> Store:
        """The policies to select from."""
        return self._now.store

    @property
    def origin(self) -> Origin:
        """Where the policies in force come from."""
        return self._now.origin

    @property
    def doubt(self) -> str | None:
        """A warning that the last reload changed a policy without a new revision; None if it did not."""
        return self._now.doubt

    @property
    def path(self) -> Path:
        """The file or folder of the policies; for a shipped policy, its file.

        Raises:
            DnpGuardError: the policies come from no file.
        """
        return self._place(self.store)

    def _place(self, store: Store) -> Path:
        if not isinstance(self._source, Policy | Store):
            return Path(self._source) if is_folder(self._source) else next(iter(store.inputs))
        raise DnpGuardError("these policies come from no file", hint="Pass the path of a file or folder.")

    def current(self, narrowing: Narrowing | None = None, *, expired: bool = False) -> Policy:
        """Return the policy in force now.

        Args:
            narrowing: region and surface of the caller, and the policies that the call adds.
            expired: return the policy even if its signature has expired, for recording but not for guarding.

        Raises:
            PolicyError: no policy is for this tenant, region and surface, or the signature has expired.
        """
        if (ended := self._now.expires) is not None and self._clock() >= ended and not expired:
            message = f"the signature of the policy in force ended at {ended:%Y-%m-%dT%H:%M:%SZ}."
            raise PolicyError([Problem(str(self._source), 0, 0, "expired", message, "Sign it again, or a newer one.")])
        narrowing = narrowing or Narrowing()
        return strictest(self.selected(narrowing.region, narrowing.surface).policy, *narrowing.policies)

    def selected(self, region: str | None = None, surface: str | None = None) -> Selected:
        """Return the policy in force now, and the policies that it is merged from.

        Raises:
            PolicyError: no policy is for this tenant, region and surface.
        """
        return self._selected(self._now, region, surface)

    def reload(self) -> bool:
        """Read the source again, and put it in force if it has changed and is acceptable.

        Returns:
            Whether other policies are in force now.

        Raises:
            PolicyError: a policy is invalid, fails its tests, or is milder without approval. The previous policies
                stay in force.
        """
        if isinstance(self._source, Policy | Store):
            return False
        store = as_store(self._source)
        if store.inputs == self.store.inputs:
            return False
        self._check(store)
        if self._verify:  # before the tests, which need not run for an unsigned policy
            self._verify.check(self._place(store), store)
        problems = [*_untested(store, self._view), *([] if self._verify else unapproved(self.store, store))]
        if problems:
            raise PolicyError(problems)
        candidate = _InForce(store, Origin(), _same_revisions(self.store, store))
        self._admit(self._selected(candidate, None, None).policy)
        self._now = self._taken(candidate, self.store)
        return True

    def untested(self) -> list[Problem]:
        """Return one problem per enforced policy without a test file, which a reload would refuse."""
        return list(without_tests(self.store))

    def _check(self, store: Store) -> None:
        for policy in store.all:
            self._admit(policy)

    def _taken(self, candidate: _InForce, before: Store | None) -> _InForce:
        # Last, so that the serial of a policy that is rejected for another reason is not stored.
        signed = self._verify.take(self._place(candidate.store), candidate.store) if self._verify else None
        origin = self._origin(before, candidate.store, signed)
        return replace(candidate, origin=origin, expires=signed.expires if signed else None)

    def _origin(self, before: Store | None, after: Store, signed: Signed | None) -> Origin:
        given = approvals(before, after)
        return Origin(
            before=self.current(expired=True).digest if before is not None else None,
            source=None if isinstance(self._source, Policy | Store) else str(self._source),
            signer=signed.signer if signed else None,
            serial=signed.serial if signed else None,
            author=signed.author if signed else None,
            approver=_joined(approval["approved_by"] for approval in given),
            reason=_joined(approval.get("reason") for approval in given),
            loosened=loosened(before, after) if before is not None else None,
            taxonomy=_taxonomy(after) or None,
        )

    def _selected(self, from_: _InForce, region: str | None, surface: str | None) -> Selected:
        now = self._clock()
        known = from_.selected.get((region, surface))
        if known is None or (known.until is not None and now >= known.until):
            known = from_.store.select(self._tenant, region, surface, at=now)
            if len(from_.selected) > _KEPT:
                from_.selected.clear()
            from_.selected[region, surface] = known
        return known


_KEPT = 1000
"""Largest size of the cache, since callers can name any region and surface."""


def _tests(store: Store) -> Iterator[tuple[Policy, Path]]:
    """Yield the enforced policies that were read from a file, with the paths where their test files belong."""
    for name, policy in store.by_name.items():
        source = store.sources.get(name)
        if policy.mode == "enforce" and source is not None:
            yield policy, source.parent / "tests" / f"{source.stem}{ENDING}"


def without_tests(store: Store) -> Iterator[Problem]:
    """Yield one problem per enforced policy without a test file, which a reload would refuse."""
    for policy, tests in _tests(store):
        if not tests.is_file():
            source = store.sources[policy.name]
            hint = f"Write {tests.name} in the folder `tests` beside it, or write `mode: shadow`."
            yield Problem(str(source), 0, 0, "untested", f"policy `{policy.name}` is enforced and has no tests.", hint)


def _untested(store: Store, view: Viewer) -> Iterator[Problem]:
    """Yield the problems of enforced policies that have no tests or fail them."""
    yield from without_tests(store)
    for policy, tests in _tests(store):
        if not tests.is_file():
            continue
        try:
            ran = run_tests(load_tests(tests, policy), view)
        except PolicyError as error:
            yield from error.problems
            continue
        for case in ran:
            if not case.passed:
                listed = "; ".join(map(str, case.differences))
                yield Problem(str(tests), case.line, 1, "case-failed", f"{case.case.name}: {listed}.", "")


def _same_revisions(before: Store, after: Store) -> str | None:
    """Return a warning that names the policies that changed without a new revision; None if there are none."""
    was = before.by_name
    same = [
        f"`{name}` {policy.revision}"
        for name, policy in after.by_name.items()
        if name in was and was[name].revision == policy.revision and was[name].digest != policy.digest
    ]
    return f"the text changed without a new revision: {', '.join(same)}" if same else None


def _taxonomy(store: Store) -> dict[str, dict[str, str]]:
    every = (category for policy in store.all for category in policy.categories)
    return {category.id: category.taxonomy.model_dump() for category in every if category.taxonomy is not None}


def _joined(texts: Iterable[object]) -> str | None:
    return "; ".join(dict.fromkeys(str(text) for text in texts if text)) or None
