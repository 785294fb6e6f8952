"""Ranks that draw one image together: the first one looks and decides, and the others do as it does.

The first rank announces every operation in which all ranks take part, such as an evaluation of a model whose layers are
split among them. The others run what it announces until it announces what it decided.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_DECIDED, _FAILED = "", "!"
"""Announcements that are no names of operations."""


class Ranks:
    """The ranks of one engine that draw images together; one rank alone needs no process group.

    Every rank has to make one at the same time, because they make a group of their own, whose messages go through the
    CPU.
    """

    def __init__(self) -> None:
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group: Any = dist.new_group(backend="gloo") if several else None
        self.leads = not several or dist.get_rank() == 0

    def announce(self, operation: str, *arguments: Any) -> None:
        """Make all other ranks run an operation with these arguments; for the first rank, which then runs it itself."""
        self._send((operation, arguments))

    def together(self, decide: Callable[[], T], operations: Any) -> T:
        """Return what the first rank decides, in every rank.

        Args:
            decide: decides; is called in the first rank only.
            operations: object whose methods are the operations that the first rank announces while it decides.

        Raises:
            CannotSteer: in the other ranks, if the first rank raised an error, which it raises itself.
        """
        if not self.leads:
            return self._followed(operations)
        try:
            decided = decide()
        except BaseException as error:
            self._send((_FAILED, (str(error) or type(error).__name__,)))
            raise
        self._send((_DECIDED, (decided,)))
        return decided

    def _send(self, message: tuple[str, tuple[Any, ...]]) -> None:
        if self._group is not None:
            operation, arguments = message
            moved = tuple(value.cpu() if isinstance(value, torch.Tensor) else value for value in arguments)
            dist.broadcast_object_list([(operation, moved)], src=0, group=self._group)

    def _followed(self, operations: Any) -> Any:
        while True:
            received: list[Any] = [None]
            dist.broadcast_object_list(received, src=0, group=self._group)
            operation, arguments = received[0]
            if operation == _DECIDED:
                return arguments[0]
            if operation == _FAILED:
                raise CannotSteer(f"the first rank cannot go on: {arguments[0]}", hint="See its log.")
            with suppress(Exception):  # the first rank has the same error, and decides what it means
                getattr(operations, operation)(*arguments)
