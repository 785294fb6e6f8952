"""Load a policy from a path or by its shipped name: read, scan, validate."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import PolicyError, Problem, did_you_mean
from dnp_guard.policy.compare.diff import milder
from dnp_guard.policy.read import calibrated
from dnp_guard.policy.read.characters import MAX_BYTES
from dnp_guard.policy.read.document import shorten
from dnp_guard.policy.read.extends import merged
from dnp_guard.policy.read.scan import scan
from dnp_guard.policy.read.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dnp_guard.policy.compare.change import Change
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.model.violation import Loc
    from dnp_guard.policy.read.document import Document

UNREADABLE = "unreadable"
"""Code of the problem of a file that cannot be read."""

MAX_CHAIN = 10
"""Largest number of policies in a chain of policies that extend one another."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PACKAGE = Path(__file__).resolve().parents[2]


def shipped() -> dict[str, Path]:
    """Return the policies shipped with the package, by name."""
    folder = _PACKAGE / "policies"
    if not folder.is_dir():  # a source checkout
        folder = _PACKAGE.parent / "policies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def packs() -> dict[str, Path]:
    """Return the shipped policies for a single kind of hazard, by name, such as ``packs/weapons``."""
    folder = next(iter(shipped().values())).parent / "packs"
    return {f"packs/{path.stem}": path for path in sorted(folder.glob("*.yaml"))}


def example_store() -> Path:
    """Return the folder of the example store that is shipped with the package."""
    folder = _PACKAGE / "examples" / "store"
    return folder if folder.is_dir() else _PACKAGE.parent / "examples" / "store"  # a source checkout


def load_policy(source: str | Path) -> Policy:
    """Load a policy.

    Args:
        source: a path, or the name of a shipped policy such as ``"default"``. A shipped name takes precedence over a
            file of that name in the working directory.

    Returns:
        The policy, checked, with ``extends`` applied and defaults filled in.

    Raises:
        PolicyError: the policy cannot be read or is invalid; carries all its problems.
    """
    return load(source).policy


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and its sources.

    Attributes:
        policy: the checked policy.
        inputs: SHA-256, in hexadecimal, of every file that was read, the policy's own first.
        document: the plain data of the policy, with the position of every key and value.
    """

    policy: Policy
    inputs: Mapping[Path, str]
    document: Document


def load(source: str | Path) -> Loaded:
    """Load a policy as :func:`load_policy` does, together with its sources."""
    path = Path(source)
    if isinstance(source, str) and _NAME.fullmatch(source):
        path = shipped().get(source, path)
    raw = read_file(path, str(source))
    reading = _Reading()
    document = reading.document(raw, str(path), path)
    return Loaded(_checked(document), reading.inputs, document)


def parse_policy(text: bytes, file: str) -> Policy:
    """Check the bytes of a policy file.

    Args:
        text: UTF-8 YAML 1.2.
        file: name of the file in problems; ``extends`` is relative to its folder.

    Raises:
        PolicyError: the policy is invalid; carries all its problems, in the order of the file.
    """
    return _checked(_Reading().document(text, file, Path(file)))


def _checked(document: Document) -> Policy:
    """Validate a document as a policy, and refuse it if it loosens a category that is locked by a base it extends."""
    policy = validate(document)
    if problems := [
        document.problem(
            _place_of(policy, change), "locked", f"locked by `{base.name}`: {change.sentence}", "Leave it out."
        )
        for base, locked in document.bound
        if locked
        for change in milder(base, policy)
        if change.subject in {*locked, ""} and change.key not in {"floor", "select"}
    ]:
        raise PolicyError(problems)
    return policy


def _place_of(policy: Policy, change: Change) -> Loc:
    key = tuple(change.key.split("."))
    ids = [category.id for category in policy.categories]
    return ("categories", ids.index(change.subject), *key) if change.subject in ids else key


class _Reading:
    """Reads one policy and its bases, the policies that it extends."""

    def __init__(self) -> None:
        self.inputs: dict[Path, str] = {}

    def document(self, raw: bytes, file: str, path: Path, chain: tuple[Path, ...] = ()) -> Document:
        """Read the content of a policy file as a document, and merge it with the policies that it extends."""
        self.inputs[path] = hashlib.sha256(raw).hexdigest()
        document = scan(raw, file)
        self.inputs |= calibrated.apply(document, path.parent)
        chain = (*chain, path.resolve())
        bases = [self._base(document, name, loc, path, chain) for loc, name in _extended(document)]
        if not bases:
            return document
        below, doubts = bases[0], list(bases[0].doubts)
        for base in bases[1:]:
            doubts += [*base.doubts, *_twice(below, base, document)]
            below = merged(below, base)
        made = merged(below, document)
        made.bound, made.doubts = [bound for base in bases for bound in base.bound], doubts
        return made

    def _base(self, document: Document, name: str, loc: Loc, path: Path, chain: tuple[Path, ...]) -> Document:
        """Read the policy that a document names in ``extends``, check it, and merge it with its own bases.

        Raises:
            PolicyError: the named policy cannot be extended, or is invalid.
        """
        problem, target = _target(document, name, loc, path, chain)
        if problem is not None:
            raise PolicyError([*document.problems, problem])
        try:
            base = self.document(read_file(target, str(target)), str(target), target, chain)
            checked = _checked(base)
        except PolicyError as error:
            cause = document.problem(loc, "bad-base", f"`{shorten(name)}` is invalid", "Mend it first.")
            raise PolicyError([*document.problems, cause, *error.problems]) from None
        base.bound += [(checked, checked.floor.locked)] if checked.floor else []
        return base


def _extended(document: Document) -> Iterator[tuple[Loc, str]]:
    """Yield the path in the document and the text of every name in ``extends``; validation reports other values."""
    names = document.data.get("extends") if isinstance(document.data, dict) else None
    if isinstance(names, str) and names.strip():
        yield ("extends",), names.strip()
    elif isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names):
        yield from ((("extends", index), name.strip()) for index, name in enumerate(names))


def _twice(below: Document, base: Document, over: Document) -> Iterator[Problem]:
    """Yield one problem per category that two bases define, if the policy that extends them does not define it."""
    for name in _ids(base):
        if name in _ids(below) and name not in _ids(over):
            message = f"two policies that this one extends define `{name}`, and `{base.file}` overrides the other"
            hint = "Define it here, or put both into a store, which applies the strictest."
            yield over.problem(("extends",), "twice-extended", message, hint)


def _ids(document: Document) -> list[str]:
    categories = document.data.get("categories") if isinstance(document.data, dict) else None
    named = [category for category in categories if isinstance(category, dict)] if isinstance(categories, list) else []
    return [str(category.get("id")) for category in named]


def _target(
    document: Document, name: str, loc: Loc, path: Path, chain: tuple[Path, ...]
) -> tuple[Problem | None, Path]:
    """Return the problem with a file that ``extends`` names, None if there is none, and the path of the file."""
    folder = path.parent
    target = folder / name
    shown = shorten(name)
    try:
        resolved = target.resolve()
        inside = resolved.is_relative_to(folder.resolve()) and not Path(name).is_absolute()
        there = resolved.is_file()
    except (OSError, ValueError, RuntimeError):
        return document.problem(
            loc, "extends", f"`{shown}` is not a path", "Name a policy file of this folder."
        ), target
    if not inside:
        hint = "Name a file of the policy's own folder, or below it."
        return document.problem(loc, "path-escape", f"`{shown}` is outside this policy's folder", hint), target
    if resolved in chain:
        names = " → ".join(file.name for file in (*chain[chain.index(resolved) :], resolved))
        return document.problem(
            loc, "extends-cycle", f"the policy extends itself: {names}", "Break the circle."
        ), target
    if not there:
        valid = sorted(file.name for file in folder.glob("*.yaml") if file.resolve() != path.resolve())
        hint = did_you_mean(name, valid) if valid else "There is no other policy in this folder."
        if Path(name).stem in shipped() and Path(name).suffix in {"", ".yaml"}:
            copy = target.with_suffix(".yaml")
            hint = f"Copy the shipped one, and extend that: dnp-guard policy init {copy} --from {copy.stem}."
        return document.problem(loc, "missing-base", f"no file `{shown}` in this policy's folder", hint), target
    if len(chain) >= MAX_CHAIN:
        message = f"policies extend each other more than {MAX_CHAIN} deep"
        return document.problem(loc, "extends-depth", message, "Extend a base directly."), target
    return None, target


def read_file(path: Path, source: str) -> bytes:
    """Read a file, but at most one byte more than the limit, which is enough to refuse it.

    Args:
        path: path of the file.
        source: name of the file in problems.

    Raises:
        PolicyError: the file does not exist, or cannot be read.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        reason = "a folder, not a file" if path.is_dir() else "not a plain file" if path.exists() else "no such file"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    hint = "Give the path of a policy file."
    if reason == "no such file":
        hint = f"Give the path of a policy file, or a shipped name. {did_you_mean(source, list(shipped()))}"
    raise PolicyError([Problem(source, 0, 0, UNREADABLE, f"cannot read a policy: {reason}.", hint)])
