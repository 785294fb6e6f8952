"""Attach guards to a target for a while; they may be detached in any order."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.guard import Guard


@dataclass(frozen=True, eq=False, slots=True)
class _Attachment:
    guard: Guard | None


_STACKS: WeakKeyDictionary[Any, list[_Attachment]] = WeakKeyDictionary()
"""Guards attached to each target, on top of the one that was there at first."""

_TURN = threading.Lock()


def attached(
    target: Any, guard: Guard, there: Callable[[], Guard | None], put: Callable[[Guard | None], None]
) -> Callable[[], None]:
    """Put a guard on a target for a while.

    Args:
        target: object to guard.
        guard: the guard.
        there: returns the guard that is on the target now.
        put: puts a guard, or None, on the target.

    Returns:
        A function that detaches the guard. It restores the guard before, unless a later one is still attached, or
        another was put there by other means.
    """
    mine = _Attachment(guard)
    with _TURN:
        before = there()
        put(guard)
        stack = _STACKS.setdefault(target, [])
        if not stack or stack[-1].guard is not before:
            stack[:] = [_Attachment(before)]
        stack.append(mine)

    def detach() -> None:
        with _TURN:
            stack = _STACKS.get(target, [])
            if mine not in stack:
                return
            in_force = stack[-1].guard is there()
            stack.remove(mine)
            if in_force:
                put(stack[-1].guard)
            if len(stack) == 1:
                del _STACKS[target]

    return detach
