"""Attach guards to a target (a pipeline, for example) temporarily; they can be detached in any order."""

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
"""The guards attached to each target, the latest last; the first entry is the guard that it had before, or None."""

_TURN = threading.Lock()


def attached(
    target: Any, guard: Guard, there: Callable[[], Guard | None], put: Callable[[Guard | None], None]
) -> Callable[[], None]:
    """Attach a guard to a target temporarily.

    Args:
        target: object to guard.
        guard: the guard.
        there: returns the guard that the target has now, or None.
        put: gives the target a guard in place of the one that it has; None leaves it without a guard.

    Returns:
        A function that detaches the guard. The target then has its previous guard again, unless a guard that was
        attached later is still attached, or other code has replaced the guard.
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
