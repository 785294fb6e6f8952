"""A folder of policies: who gets which, above which floor, and with which exceptions. Pure once it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dnp_guard.errors import PolicyError, Problem
from dnp_guard.policy.compare.merge import strictest
from dnp_guard.policy.model.exceptions import with_exceptions
from dnp_guard.policy.model.policy import Policy
from dnp_guard.policy.read.folder import misnamed, named
from dnp_guard.policy.read.loading import Loaded, load, shipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.policy.model.scope import PolicyException

FLOOR = "floor.yaml"
_LONGEST_NAME = 64

_IN_STORE = "Policies end in .yaml; folders in it are not looked into."


@dataclass(frozen=True, slots=True)
class Selected:
    """The policy in force for someone at a time.

    Attributes:
        policy: several merged to one; its digest is what records and metrics carry.
        names: of the policies that it is made from, the floor last.
        exceptions: those in force.
    """

    policy: Policy
    names: tuple[str, ...]
    exceptions: tuple[PolicyException, ...] = ()

    @property
    def until(self) -> datetime | None:
        """When the first exception in force ends; None where none is."""
        return min((exception.until for exception in self.exceptions), default=None)


@dataclass(frozen=True, slots=True)
class Store:
    """Policies, each for some tenants, regions and surfaces, and the floor under all of them.

    Attributes:
        policies: the floor left out.
        floor: what holds for everyone; None where there is none.
        inputs: SHA-256, in hexadecimal, of every file that was read.
        sources: the file of each policy by its name, where it was read from one.
    """

    policies: tuple[Policy, ...]
    floor: Policy | None = None
    inputs: Mapping[Path, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy, the floor too."""
        return (*self.policies, *([self.floor] if self.floor else []))

    @property
    def by_name(self) -> dict[str, Policy]:
        """Every policy by its name, the floor too."""
        return {policy.name: policy for policy in self.all}

    def chosen(self, tenant: str | None, region: str | None, surface: str | None) -> list[Policy]:
        """The policies that match someone, and the floor, which is the last."""
        matching = (each for each in self.policies if not each.select or each.select.matches(tenant, region, surface))
        return [*matching, *([self.floor] if self.floor else [])]

    def select(
        self, tenant: str | None = None, region: str | None = None, surface: str | None = None, *, at: datetime
    ) -> Selected:
        """The policy in force for someone at a time: all that match, and the floor, the strictest of each.

        A region, surface or tenant that no policy names gets the floor and the policies that are for everyone.

        Args:
            tenant: None where it is not known.
            region: likewise.
            surface: likewise.
            at: the time, with its zone.

        Raises:
            PolicyError: no policy matches, and there is no floor; or those that match leave nothing, as two that allow
                no backend in common.
        """
        chosen = self.chosen(tenant, region, surface)
        if not chosen:
            who = ", ".join(
                f"{kind} {value!r}"
                for kind, value in (("tenant", tenant), ("region", region), ("surface", surface))
                if value is not None
            )
            message = f"no policy for {who or 'a caller who names no tenant, region or surface'}."
            raise PolicyError([Problem("", 0, 0, "no-policy", message, f"Add one, or a {FLOOR}.")])
        try:
            return merged(chosen, self.floor, tenant, at)
        except ValidationError as error:
            names = ", ".join(f"`{policy.name}`" for policy in chosen)
            first = error.errors(include_url=False)[0]
            why = "`vlm.allow` of each leaves no model that all allow" if "vlm" in first["loc"] else first["msg"]
            message = f"policies {names} cannot be in force together: {why}."
            raise PolicyError([Problem("", 0, 0, "no-merge", message, "Change one of them.")]) from None


def merged(chosen: Sequence[Policy], floor: Policy | None, tenant: str | None, at: datetime) -> Selected:
    """Several policies as the one that is in force for a tenant at a time.

    It goes by the names of those of its mode that select somebody, or else of those that are for everyone, or else of
    the floor, which is under all of them.

    Raises:
        ValidationError: they leave no valid policy.
    """
    policy = strictest(*(with_exceptions(each, tenant, at) for each in chosen))
    alike = [each for each in chosen if each.mode == policy.mode]
    over = [each for each in alike if each is not floor]
    named = [each for each in over if each.select] or over or alike
    name, revision = "-".join(each.name for each in named), ", ".join(each.revision for each in named)
    if (name, revision) != (policy.name, policy.revision):
        policy = policy.model_copy(update={"name": name[:_LONGEST_NAME].rstrip("-_"), "revision": revision})
    exceptions = (exception for each in chosen for exception in each.exceptions or () if exception.applies(tenant, at))
    return Selected(policy, tuple(each.name for each in chosen), tuple(exceptions))


def as_store(source: str | Path | Policy | Store) -> Store:
    """A store of whatever a guard may be given.

    Args:
        source: a store, a policy, the path of a policy or of a folder of them, or the name of a shipped policy.

    Raises:
        PolicyError: something in it does not check; all problems of all files.
    """
    if isinstance(source, Store):
        return source
    if isinstance(source, Policy):
        return Store((source,))
    if not isinstance(source, str | Path):
        message = f"a {type(source).__name__} is no policy."
        hint = "Give a path, a shipped name, a store, or a Policy: Policy.model_validate(…) makes one of plain data."
        raise PolicyError([Problem("policy", 0, 0, "wrong-type", message, hint)])
    if is_folder(source):
        return load_store(Path(source))
    loaded = load(source)
    if problems := exception_problems(loaded):
        raise PolicyError(problems)
    return Store((loaded.policy,), None, loaded.inputs, {loaded.policy.name: next(iter(loaded.inputs))})


def is_folder(source: str | Path) -> bool:
    """Whether a source is a folder of policies; a shipped name is none, whatever lies in the working directory."""
    return not (isinstance(source, str) and source in shipped()) and Path(source).is_dir()


def load_store(folder: Path) -> Store:
    """Read every policy of a folder, of which ``floor.yaml`` is the floor; folders in it are not looked into.

    Raises:
        PolicyError: there is none, two have one name, one does not check, or one would be ignored for its ending; all
            problems of all files.
    """
    problems = list(misnamed([*folder.glob("*"), *(folder / "tests").glob("*")]))
    loaded: dict[Path, Loaded] = {}
    for path in named(folder.glob("*.yaml")):
        try:
            loaded[path] = load(path)
            problems += exception_problems(loaded[path])
        except PolicyError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    by_name: dict[str, Path] = {}
    for path, each in loaded.items():
        if (first := by_name.setdefault(each.policy.name, path)) != path:
            message = f"policy `{each.policy.name}` is also in {first.name}."
            problems.append(Problem(str(path), 1, 1, "duplicate-policy", message, "Names are unique in a store."))
    if not loaded and not problems:
        problems.append(Problem(str(folder), 0, 0, "unreadable", "no policy in this folder.", _IN_STORE))
    if problems:
        raise PolicyError(problems)
    floor = next((each.policy for path, each in loaded.items() if path.name == FLOOR), None)
    inputs = {file: digest for each in loaded.values() for file, digest in each.inputs.items()}
    policies = tuple(each.policy for path, each in loaded.items() if path.name != FLOOR)
    return Store(policies, floor, inputs, by_name)


def exception_problems(loaded: Loaded) -> list[Problem]:
    """Exceptions that would leave no valid policy."""
    problems: list[Problem] = []
    policy = loaded.policy
    for index, exception in enumerate(policy.exceptions or ()):
        alone = policy.model_copy(update={"exceptions": (exception,)})
        try:
            with_exceptions(alone, exception.tenant, datetime.min.replace(tzinfo=exception.until.tzinfo))
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            problems.append(
                loaded.document.problem(("exceptions", index), "exception", f"not a valid policy: {said}", "Set less.")
            )
    return problems
