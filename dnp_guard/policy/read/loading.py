"""From a path or a shipped name to a policy: read, scan, validate."""

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
"""Code of the problem that there is no file to check."""

MAX_CHAIN = 10
"""How many policies may extend each other in a row."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PACKAGE = Path(__file__).resolve().parents[2]


def shipped() -> dict[str, Path]:
    """The policies that come with the package, by name."""
    folder = _PACKAGE / "policies"
    if not folder.is_dir():  # a source checkout
        folder = _PACKAGE.parent / "policies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def packs() -> dict[str, Path]:
    """The policies for one kind of hazard each that come with the package, by name: ``packs/weapons``."""
    folder = next(iter(shipped().values())).parent / "packs"
    return {f"packs/{path.stem}": path for path in sorted(folder.glob("*.yaml"))}


def example_store() -> Path:
    """The folder of the store that comes with the package, as an example."""
    folder = _PACKAGE / "examples" / "store"
    return folder if folder.is_dir() else _PACKAGE.parent / "examples" / "store"  # a source checkout


def load_policy(source: str | Path) -> Policy:
    """Load a policy.

    Args:
        source: a path, or the name of a shipped policy such as ``"default"``. A bare word is a shipped name first, so
            that no file of the working directory takes its place.

    Returns:
        The policy, checked, ``extends`` applied and its defaults filled in.

    Raises:
        PolicyError: it cannot be read, or does not check; all its problems.
    """
    return load(source).policy


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy, and what it was made from.

    Attributes:
        policy: checked.
        inputs: SHA-256, in hexadecimal, of every file that was read for it, the policy's own first.
        document: the places of its parts.
    """

    policy: Policy
    inputs: Mapping[Path, str]
    document: Document


def load(source: str | Path) -> Loaded:
    """Load a policy as :func:`load_policy` does, and say which bytes it was made from."""
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
        file: what problems name as the file; ``extends`` starts from its folder.

    Raises:
        PolicyError: it does not check; all its problems, in the order of the file.
    """
    return _checked(_Reading().document(text, file, Path(file)))


def _checked(document: Document) -> Policy:
    """The policy of a document; what it extends has not been loosened where that is locked."""
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
    """Reads one policy and what it extends."""

    def __init__(self) -> None:
        self.inputs: dict[Path, str] = {}

    def document(self, raw: bytes, file: str, path: Path, chain: tuple[Path, ...] = ()) -> Document:
        """The document of a file, its bases applied and checked."""
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
        """The document of one policy that another extends.

        Raises:
            PolicyError: it may not be read, or does not check.
        """
        problem, target = _target(document, name, loc, path, chain)
        if problem is not None:
            raise PolicyError([*document.problems, problem])
        try:
            base = self.document(read_file(target, str(target)), str(target), target, chain)
            checked = _checked(base)
        except PolicyError as error:
            cause = document.problem(loc, "bad-base", f"`{shorten(name)}` does not check", "Mend it first.")
            raise PolicyError([*document.problems, cause, *error.problems]) from None
        base.bound += [(checked, checked.floor.locked)] if checked.floor else []
        return base


def _extended(document: Document) -> Iterator[tuple[Loc, str]]:
    """The files that a document extends, each with its place; what is none is told when the document is checked."""
    names = document.data.get("extends") if isinstance(document.data, dict) else None
    if isinstance(names, str) and names.strip():
        yield ("extends",), names.strip()
    elif isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names):
        yield from ((("extends", index), name.strip()) for index, name in enumerate(names))


def _twice(below: Document, base: Document, over: Document) -> Iterator[Problem]:
    """The categories that two policies have which one extends, and which it does not write anew."""
    for name in _ids(base):
        if name in _ids(below) and name not in _ids(over):
            message = f"`{name}` is in two policies that this one extends, and `{base.file}` overrides the other"
            hint = "Write here what is to hold, or put both into a store, where the strictest does."
            yield over.problem(("extends",), "twice-extended", message, hint)


def _ids(document: Document) -> list[str]:
    categories = document.data.get("categories") if isinstance(document.data, dict) else None
    named = [category for category in categories if isinstance(category, dict)] if isinstance(categories, list) else []
    return [str(category.get("id")) for category in named]


def _target(
    document: Document, name: str, loc: Loc, path: Path, chain: tuple[Path, ...]
) -> tuple[Problem | None, Path]:
    """The file that ``extends`` names, or why it may not be read."""
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
        names = " → ".join(each.name for each in (*chain[chain.index(resolved) :], resolved))
        return document.problem(
            loc, "extends-cycle", f"the policy extends itself: {names}", "Break the circle."
        ), target
    if not there:
        valid = sorted(each.name for each in folder.glob("*.yaml") if each.resolve() != path.resolve())
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
    """The bytes of a file, of a file that is too large no more than shows that it is.

    Args:
        path: of the file.
        source: what problems name as the file.

    Raises:
        PolicyError: there is no such file, or it cannot be read.
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
