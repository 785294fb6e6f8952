"""Match what a person typed with the ids and names in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import AuditError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMED = 12


def whole_id(given: str, ids: Iterable[str]) -> str:
    """Complete an id of which only the beginning is given.

    Args:
        given: an id, or its beginning.
        ids: ids in the log.

    Raises:
        AuditError: no id begins with this text, or several ids do.

    >>> whole_id("f08", ["f0843c", "a11"])
    'f0843c'
    """
    matches = {name for name in ids if given and name.startswith(given)}
    if given in matches:
        return given
    if not matches:
        raise AuditError(f"no such generation: {given}", hint="'audit show' without --request lists them.")
    if len(matches) > 1:
        raise AuditError(
            f"{len(matches)} generations begin with {given}: {_listed(matches)}", hint="Give more of the id."
        )
    return matches.pop()


def known(kind: str, given: str | None, valid: Iterable[str]) -> None:
    """Raise an error if a name is not one of the known names, and suggest the nearest.

    Args:
        kind: kind of name, such as ``policy``, for the error.
        given: the name; None is accepted.
        valid: the known names.

    Raises:
        AuditError: the name is unknown.
    """
    names = sorted(filter(None, set(valid)))
    if given is None or given in names:
        return
    meant = nearest(given, names)
    raise AuditError(
        f"no {kind} here is called {given!r}" + (f"; did you mean {meant}?" if meant else ""),
        hint=f"Valid here: {_listed(names)}." if names else f"The log has no {kind}.",
    )


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more
