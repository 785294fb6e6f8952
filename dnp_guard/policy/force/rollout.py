"""The policies of one guard: which is in force for whom, and how others take their place.

What is in force is swapped as a whole, by one assignment; a generation keeps what it started with.
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
    """What one call adds to what is in force; it can only tighten.

    Attributes:
        policies: merged strictest-wins.
        region: of the call.
        surface: of the call.
    """

    policies: tuple[Policy, ...] = ()
    region: str | None = None
    surface: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where what is in force came from: ``loaded{…}`` of the record.

    Attributes:
        before: digest of the policy that was in force before; None at first.
        source: the path or the shipped name; None of a policy given as a value.
        signer: the public key, in base64, whose signature was asked for and fits.
        serial: of the signature.
        author: who wrote it, as the signature says.
        approver: who approved what has changed, where somebody did.
        reason: why they did.
        loosened: whether it lets more through than what was before, or may; None at first.
        taxonomy: where its categories belong in published lists, by their ids; None where it says of none.
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
    """A store, where it came from, what is doubtful about it, and what has been selected from it so far."""

    store: Store
    origin: Origin
    doubt: str | None = None
    expires: datetime | None = None
    selected: dict[tuple[str | None, str | None], Selected] = field(default_factory=dict)


class Rollout:
    """What is in force, and the way for something else to be.

    Args:
        source: a store, a policy, a path or a shipped name, to read again on a reload.
        store: what the source holds now.
        tenant: whom the guard serves.
        admit: raises where the guard cannot do what a policy asks.
        view: has a backend look at the images of tests.
        verify: raises where the store is not signed as it must be; None where it need not be.
        clock: tells the time, with its zone.

    Raises:
        PolicyError: something does not check, or nothing is for this tenant.
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
        admit(self.current())  # what several are merged to
        self._now = self._taken(self._now, None)

    @property
    def store(self) -> Store:
        """The policies to select from."""
        return self._now.store

    @property
    def origin(self) -> Origin:
        """Where they came from."""
        return self._now.origin

    @property
    def doubt(self) -> str | None:
        """What a person should look at of the last change; None where there is nothing."""
        return self._now.doubt

    @property
    def path(self) -> Path:
        """The file or folder that the policies come from; of a shipped policy, its file.

        Raises:
            DnpGuardError: they come from none.
        """
        return self._place(self.store)

    def _place(self, store: Store) -> Path:
        if not isinstance(self._source, Policy | Store):
            return Path(self._source) if is_folder(self._source) else next(iter(store.inputs))
        raise DnpGuardError("these policies come from no file", hint="Pass the path of a file or folder.")

    def current(self, narrowing: Narrowing | None = None, *, expired: bool = False) -> Policy:
        """The policy in force now.

        Args:
            narrowing: what the call adds.
            expired: give it although its signature has ended, to record by it and not to guard by it.

        Raises:
            PolicyError: nothing is for this tenant, region and surface, or the signature has ended.
        """
        if (ended := self._now.expires) is not None and self._clock() >= ended and not expired:
            message = f"the signature of the policy in force ended at {ended:%Y-%m-%dT%H:%M:%SZ}."
            raise PolicyError([Problem(str(self._source), 0, 0, "expired", message, "Sign it again, or a newer one.")])
        narrowing = narrowing or Narrowing()
        return strictest(self.selected(narrowing.region, narrowing.surface).policy, *narrowing.policies)

    def selected(self, region: str | None = None, surface: str | None = None) -> Selected:
        """The policy in force now, and what it is made from.

        Raises:
            PolicyError: nothing is for this tenant, region and surface.
        """
        return self._selected(self._now, region, surface)

    def reload(self) -> bool:
        """Read the source again and put it in force, where it has changed and may be.

        Returns:
            Whether something else is in force now.

        Raises:
            PolicyError: it does not check, fails its tests, or is milder without approval; what was in force still is.
        """
        if isinstance(self._source, Policy | Store):
            return False
        store = as_store(self._source)
        if store.inputs == self.store.inputs:
            return False
        self._check(store)
        if self._verify:  # first, as a text that nobody signed is not worth a test
            self._verify.check(self._place(store), store)
        problems = [*_untested(store, self._view), *([] if self._verify else unapproved(self.store, store))]
        if problems:
            raise PolicyError(problems)
        candidate = _InForce(store, Origin(), _same_revisions(self.store, store))
        self._admit(self._selected(candidate, None, None).policy)
        self._now = self._taken(candidate, self.store)
        return True

    def untested(self) -> list[Problem]:
        """The enforced policies that a reload would refuse for want of tests."""
        return list(without_tests(self.store))

    def _check(self, store: Store) -> None:
        for policy in store.all:
            self._admit(policy)

    def _taken(self, candidate: _InForce, before: Store | None) -> _InForce:
        # Last, so that the serial of a policy that is rejected for something else is not kept.
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
            approver=_joined(each["approved_by"] for each in given),
            reason=_joined(each.get("reason") for each in given),
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
"""Selections remembered; regions and surfaces come from callers."""


def _tests(store: Store) -> Iterator[tuple[Policy, Path]]:
    """The enforced policies that were read from a file, each with the file of its tests."""
    for name, policy in store.by_name.items():
        source = store.sources.get(name)
        if policy.mode == "enforce" and source is not None:
            yield policy, source.parent / "tests" / f"{source.stem}{ENDING}"


def without_tests(store: Store) -> Iterator[Problem]:
    """The enforced policies of a store that have no tests, and that a reload would refuse."""
    for policy, tests in _tests(store):
        if not tests.is_file():
            source = store.sources[policy.name]
            hint = f"Write {tests.name} in the folder `tests` beside it, or say `mode: shadow`."
            yield Problem(str(source), 0, 0, "untested", f"policy `{policy.name}` is enforced and has no tests.", hint)


def _untested(store: Store, view: Viewer) -> Iterator[Problem]:
    """Why enforced policies of a store may not be put in force as far as their tests go."""
    yield from without_tests(store)
    for policy, tests in _tests(store):
        if not tests.is_file():
            continue
        try:
            ran = run_tests(load_tests(tests, policy), view)
        except PolicyError as error:
            yield from error.problems
            continue
        for each in ran:
            if not each.passed:
                said = "; ".join(map(str, each.differences))
                yield Problem(str(tests), each.line, 1, "case-failed", f"{each.case.name}: {said}.", "")


def _same_revisions(before: Store, after: Store) -> str | None:
    """Which policies have another text under the name and revision that they had."""
    was = before.by_name
    same = [
        f"`{name}` {policy.revision}"
        for name, policy in after.by_name.items()
        if name in was and was[name].revision == policy.revision and was[name].digest != policy.digest
    ]
    return f"the revision was not raised, over another text: {', '.join(same)}" if same else None


def _taxonomy(store: Store) -> dict[str, dict[str, str]]:
    every = (category for policy in store.all for category in policy.categories)
    return {category.id: category.taxonomy.model_dump() for category in every if category.taxonomy is not None}


def _joined(texts: Iterable[object]) -> str | None:
    return "; ".join(dict.fromkeys(str(each) for each in texts if each)) or None
