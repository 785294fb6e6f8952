"""From a path or a shipped name to a policy: read, scan, validate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import PolicyError, Problem
from dnp_guard.policy.characters import MAX_BYTES
from dnp_guard.policy.scan import scan
from dnp_guard.policy.suggest import did_you_mean
from dnp_guard.policy.validate import validate

if TYPE_CHECKING:
    from dnp_guard.policy.model import Policy

UNREADABLE = "unreadable"
"""Code of the problem that there is no file to check."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped() -> dict[str, Path]:
    """The policies that come with the package, by name."""
    folder = _PACKAGE / "policies"
    if not folder.is_dir():  # a source checkout
        folder = _PACKAGE.parent / "policies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_policy(source: str | Path) -> Policy:
    """Load a policy.

    Args:
        source: a path, or the name of a shipped policy such as ``"default"``. A bare word is a shipped name first, so
            that no file of the working directory takes its place.

    Returns:
        The policy, checked, with its defaults filled in.

    Raises:
        PolicyError: it cannot be read, or does not check; all its problems.
    """
    path = Path(source)
    if isinstance(source, str) and _NAME.fullmatch(source):
        path = shipped().get(source, path)
    return parse_policy(_read(path, str(source)), str(path))


def parse_policy(text: bytes, file: str) -> Policy:
    """Check the bytes of a policy file.

    Args:
        text: UTF-8 YAML 1.2.
        file: what problems name as the file.

    Raises:
        PolicyError: it does not check; all its problems, in the order of the file.
    """
    return validate(scan(text, file))


def _read(path: Path, source: str) -> bytes:
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
