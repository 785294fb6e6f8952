"""The checks of ``dnp-guard policy check`` on files and folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import PolicyError, Problem
from dnp_guard.policy.force.callers import faults, is_store, never_in_shadow
from dnp_guard.policy.force.store import exception_problems, load_store
from dnp_guard.policy.read.folder import misnamed, named
from dnp_guard.policy.read.lint import warnings
from dnp_guard.policy.read.loading import UNREADABLE, Loaded, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dnp_guard.policy import Policy

NOT_POLICIES = {"tests", "schema"}
"""Folders beside policies that contain other YAML files."""


@dataclass(slots=True)
class PolicyCheck:
    """The results of checking policy files and folders.

    Attributes:
        loaded: the valid policies, by file.
        problems: problems of invalid policies, and of folders whose policies cannot be in force together.
        doubts: warnings about the valid policies.
    """

    loaded: dict[str, Loaded] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    doubts: list[Problem] = field(default_factory=list)

    @property
    def policies(self) -> dict[str, Policy]:
        """The valid policies, by file."""
        return {file: loaded.policy for file, loaded in self.loaded.items()}

    def add(self, path: str) -> None:
        """Check a file; or check every policy in a folder, and whether they can be in force together."""
        files = _files(path)
        self.problems += misnamed(Path(path).rglob("*"))
        if not files:
            self.problems.append(Problem(path, 0, 0, UNREADABLE, "no policy in this folder.", "Policies end in .yaml."))
        before = len(self.problems)
        for file in files:
            try:
                loaded = load(file)
            except PolicyError as error:
                self.problems += error.problems
                continue
            self.loaded[file] = loaded
            self.problems += exception_problems(loaded)
            self.doubts += warnings(loaded)
        if Path(path).is_dir() and len(self.problems) == before and named(Path(path).glob("*.yaml")):
            self._together(path)

    def _together(self, folder: str) -> None:
        top = {file: loaded for file, loaded in self.loaded.items() if Path(file).parent == Path(folder)}
        try:
            store = load_store(Path(folder))
        except PolicyError as error:  # two have the same name; a collection of copies is not a store
            selecting = any(loaded.policy.select or Path(file).name == "floor.yaml" for file, loaded in top.items())
            self.problems += error.problems if selecting else []
            return
        if not is_store(store):
            return
        self.problems += faults(store, folder, datetime.now(UTC))
        for policy, category, enforcing in never_in_shadow(store):
            loaded = self.loaded[str(store.sources[policy.name])]
            index = [other.id for other in policy.categories].index(category)
            message = (
                f"`{category}` is in shadow here, but `{enforcing.name}` enforces it for all callers of the policy"
            )
            hint = f"The shadow has no effect: give the category another id, or delete it from {enforcing.name}."
            self.doubts.append(loaded.document.problem(("categories", index), "never-in-shadow", message, hint))

    def same_revision(self) -> Iterator[Problem]:
        """Yield one problem per policy with the name and revision of another, but a different text."""
        first: dict[tuple[str, str], tuple[str, str]] = {}
        for file, loaded in self.loaded.items():
            policy = loaded.policy
            other, digest = first.setdefault((policy.name, policy.revision), (file, policy.digest))
            if digest != policy.digest:
                message = f"{other} has the same name and revision but another text"
                yield loaded.document.problem(("revision",), "same-revision", message, "Raise `revision`.")


def _files(path: str) -> list[str]:
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    return [
        str(file)
        for file in named(folder.rglob("*.yaml"))
        if not NOT_POLICIES.intersection(file.relative_to(folder).parts[:-1])
    ]
