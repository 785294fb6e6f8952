"""A folder of policies: which of them apply to which caller, besides the floor, which applies to everyone."""

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

_IN_STORE = "Policies end in .yaml; folders inside the folder are not searched."


@dataclass(frozen=True, slots=True)
class Selected:
    """The policy in force for a caller at a given time.

    Attributes:
        policy: the merged policy; records and metrics carry its digest.
        names: names of the policies that it is merged from; last the floor, the policy for everyone.
        exceptions: exceptions in force.
    """

    policy: Policy
    names: tuple[str, ...]
    exceptions: tuple[PolicyException, ...] = ()

    @property
    def until(self) -> datetime | None:
        """When the first of the exceptions ends, so that the policy changes; None if there are no exceptions."""
        return min((exception.until for exception in self.exceptions), default=None)


@dataclass(frozen=True, slots=True)
class Store:
    """Policies for tenants, regions and surfaces, and the floor, the policy that all others may only tighten.

    Attributes:
        policies: every policy except the floor.
        floor: policy that applies to everyone; None if there is none.
        inputs: SHA-256 of every file that was read, in hexadecimal.
        sources: file of every policy that was read from one, by policy name.
    """

    policies: tuple[Policy, ...]
    floor: Policy | None = None
    inputs: Mapping[Path, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy, including the floor."""
        return (*self.policies, *([self.floor] if self.floor else []))

    @property
    def by_name(self) -> dict[str, Policy]:
        """Every policy by name, including the floor."""
        return {policy.name: policy for policy in self.all}

    def chosen(self, tenant: str | None, region: str | None, surface: str | None) -> list[Policy]:
        """Return the policies that apply to a caller, the floor last."""
        matching = (
            policy for policy in self.policies if not policy.select or policy.select.matches(tenant, region, surface)
        )
        return [*matching, *([self.floor] if self.floor else [])]

    def select(
        self, tenant: str | None = None, region: str | None = None, surface: str | None = None, *, at: datetime
    ) -> Selected:
        """Return the policy in force for a caller at a given time: the floor merged with every matching policy.

        A region, surface or tenant that no policy names gets the floor and the policies that are for everyone.

        Args:
            tenant: None if unknown.
            region: None if unknown.
            surface: None if unknown.
            at: the time, with its zone.

        Raises:
            PolicyError: no policy matches and there is no floor, or the matching policies cannot be merged, for
                example because they allow no common backend.
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
            why = "their `vlm.allow` have no model in common" if "vlm" in first["loc"] else first["msg"]
            message = f"policies {names} cannot be in force together: {why}."
            raise PolicyError([Problem("", 0, 0, "no-merge", message, "Change one of them.")]) from None


def merged(chosen: Sequence[Policy], floor: Policy | None, tenant: str | None, at: datetime) -> Selected:
    """Merge several policies into the one that is in force for a given tenant at a given time.

    The name of the result joins the names of the policies that have its mode and select callers. If there are none, it
    joins those of the policies that have its mode and are for everyone; if there are none of these either, it is the
    name of the floor, the policy that all others may only tighten.

    Raises:
        ValidationError: the merged policy is not valid.
    """
    result = strictest(*(with_exceptions(policy, tenant, at) for policy in chosen))
    alike = [policy for policy in chosen if policy.mode == result.mode]
    over = [policy for policy in alike if policy is not floor]
    named = [policy for policy in over if policy.select] or over or alike
    name, revision = "-".join(policy.name for policy in named), ", ".join(policy.revision for policy in named)
    if (name, revision) != (result.name, result.revision):
        result = result.model_copy(update={"name": name[:_LONGEST_NAME].rstrip("-_"), "revision": revision})
    exceptions = (
        exception for policy in chosen for exception in policy.exceptions or () if exception.applies(tenant, at)
    )
    return Selected(result, tuple(policy.name for policy in chosen), tuple(exceptions))


def as_store(source: str | Path | Policy | Store) -> Store:
    """Make a store of any source of policies that a guard accepts.

    Args:
        source: a store, a policy, the path of a policy or of a folder of policies, or the name of a shipped policy.

    Raises:
        PolicyError: a policy is invalid; carries all problems of all files.
    """
    if isinstance(source, Store):
        return source
    if isinstance(source, Policy):
        return Store((source,))
    if not isinstance(source, str | Path):
        message = f"a {type(source).__name__} is not a policy."
        hint = "Give a path, a shipped name, a store, or a Policy: Policy.model_validate(…) makes one of plain data."
        raise PolicyError([Problem("policy", 0, 0, "wrong-type", message, hint)])
    if is_folder(source):
        return load_store(Path(source))
    loaded = load(source)
    if problems := exception_problems(loaded):
        raise PolicyError(problems)
    return Store((loaded.policy,), None, loaded.inputs, {loaded.policy.name: next(iter(loaded.inputs))})


def is_folder(source: str | Path) -> bool:
    """Return whether a source is a folder; the name of a shipped policy never is, even if a folder has that name."""
    return not (isinstance(source, str) and source in shipped()) and Path(source).is_dir()


def load_store(folder: Path) -> Store:
    """Read every policy of a folder; ``floor.yaml`` applies to everyone. Folders inside the folder are not searched.

    Raises:
        PolicyError: there is no policy, two have the same name, one is invalid, or a YAML file would be ignored because
            its name does not end in ``.yaml``; carries all problems of all files.
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
    for path, read in loaded.items():
        if (first := by_name.setdefault(read.policy.name, path)) != path:
            message = f"policy `{read.policy.name}` is also in {first.name}."
            problems.append(Problem(str(path), 1, 1, "duplicate-policy", message, "Names are unique in a store."))
    if not loaded and not problems:
        problems.append(Problem(str(folder), 0, 0, "unreadable", "no policy in this folder.", _IN_STORE))
    if problems:
        raise PolicyError(problems)
    floor = next((read.policy for path, read in loaded.items() if path.name == FLOOR), None)
    inputs = {file: digest for read in loaded.values() for file, digest in read.inputs.items()}
    policies = tuple(read.policy for path, read in loaded.items() if path.name != FLOOR)
    return Store(policies, floor, inputs, by_name)


def exception_problems(loaded: Loaded) -> list[Problem]:
    """Return one problem per temporary exception that would make its policy invalid."""
    problems: list[Problem] = []
    policy = loaded.policy
    for index, exception in enumerate(policy.exceptions or ()):
        alone = policy.model_copy(update={"exceptions": (exception,)})
        try:
            with_exceptions(alone, exception.tenant, datetime.min.replace(tzinfo=exception.until.tzinfo))
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            problems.append(
                loaded.document.problem(
                    ("exceptions", index), "exception", f"not a valid policy: {reason}", "Set less."
                )
            )
    return problems
