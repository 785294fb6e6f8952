"""Keep ranks in step that draw one image together: the first rank queries the VLM and decides, the others follow.

A rank is one of an engine's processes. The first rank announces every operation in which all ranks take part, such as
an evaluation of a model whose layers are split among them. The others run the announced operations until the first rank
announces its decision. Every message carries the numbers of the request and of the calls in which it was sent. If these
numbers differ between ranks, or only some ranks had an error, the ranks are out of step, and draw nothing any more.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
_log = logging.getLogger("dnp_guard.engines")
TIMEOUT = timedelta(minutes=10)
"""Longest time that a rank waits for another one."""
_DECIDED, _FAILED, _ENDED = "", "!", "."
"""Announcements that are not names of operations: a decision, a failure to decide, and the end of a request."""


class Ranks:
    """The link of one rank to the other ranks that draw images with it; a single rank needs no process group.

    All ranks have to create their ``Ranks`` at the same time, because together they create a process group of their
    own, whose messages go through the CPU.

    Args:
        timeout: longest time that a rank waits for another one.

    Attributes:
        leads: whether this is the first rank, which decides.
        broken: why the ranks can draw nothing together any more; empty while they can.

    Raises:
        CannotSteer: another rank did not create its ``Ranks`` in time.
    """

    def __init__(self, timeout: timedelta = TIMEOUT) -> None:
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.leads = not several or dist.get_rank() == 0
        self.broken = ""
        self._group: Any = None
        self._lost = self._ended = False
        self._agreed = self._request = self._calls = 0
        self._open: list[int] = []
        self._missed: list[str] = []
        if several:
            try:
                self._group = dist.new_group(backend="gloo", timeout=timeout)
            except RuntimeError as error:
                raise CannotSteer("another rank cannot be guarded, or is late", hint="See its log.") from error

    def agree(self, place: Any, check: Callable[[], T]) -> T:
        """Run a check in every rank, and return this rank's result if no rank's check fails.

        Args:
            place: name of the check or ids of the checked requests; has to be the same in all ranks.
            check: the check; fails by raising an error.

        Raises:
            CannotSteer: the check failed in another rank, or the ranks are out of step. An error of this rank's own
                check is raised as it is.
        """
        self._check()
        failed: Exception | None = None
        try:
            result = check()
        except Exception as error:  # noqa: BLE001 (raised below, once the other ranks know)
            failed = error
        self._agreed += 1
        reasons = self._compared((place, self._agreed), None if failed is None else str(failed) or repr(failed))
        if failed is not None:
            raise failed
        if reasons := [reason for reason in reasons if reason is not None]:
            raise CannotSteer(f"another rank refuses the request: {reasons[0]}", hint="See its log.")
        return result

    @contextmanager
    def request(self) -> Iterator[None]:
        """Enclose the drawing of one request: all ranks have to leave the ``with`` block by an error, or none of them.

        Raises:
            CannotSteer: the ranks are out of step, such as after an error in only one of them.
        """
        self._check()
        self._request, self._calls, self._ended, self._missed = self._request + 1, 0, False, []
        try:
            yield
        except Exception:
            self._settle(failed=True)
            raise
        except BaseException:  # this process is ending, and waits for nobody
            self.broken = "a rank was interrupted"
            raise
        self._settle(failed=False)

    def run(self, operations: Any, name: str, *arguments: Any) -> Any:
        """Run an operation in all ranks; only the first rank calls this, while it decides."""
        self._send(name, *arguments)
        return self._operate(operations, name, arguments)

    def together(self, decide: Callable[[], T], operations: Any) -> T:
        """Return the first rank's decision, in every rank.

        Args:
            decide: makes the decision; is called in the first rank only.
            operations: object whose methods are the operations that all ranks run while the first one decides.

        Raises:
            CannotSteer: ``decide`` failed in the first rank (which raises the error itself), or the ranks are out of
                step.
        """
        self._check()
        self._calls += 1
        self._open.append(self._calls)
        try:
            if not self.leads:
                return self._followed(operations)
            try:
                decided = decide()
            except Exception as error:
                self._send(_FAILED, str(error) or type(error).__name__)
                raise
            self._send(_DECIDED, decided)
            return decided
        finally:
            self._open.pop()

    def _followed(self, operations: Any) -> Any:
        while True:
            place, name, arguments = self._received()
            if name == _ENDED:
                self._ended = True
                self._break("the first rank ended the request early")
            if place != self._place():
                self._break("a message of the first rank is of another call")
            if name == _DECIDED:
                return arguments[0]
            if name == _FAILED:
                raise CannotSteer(f"the first rank cannot go on: {arguments[0]}", hint="See its log.")
            try:
                self._operate(operations, name, arguments)
            except Exception:  # noqa: BLE001 (the first rank decides if it has the error, too; if not, the ranks differ)
                self._check()
                _log.warning("operation %r of the first rank failed in another", name, exc_info=True)

    def _operate(self, operations: Any, name: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return getattr(operations, name)(*arguments)
        except Exception:
            self._missed.append(name)
            raise

    def _settle(self, *, failed: bool) -> None:
        """End a request in all ranks, and check that all of them made the same calls and had the same errors."""
        if self._group is not None and not self._lost:
            if self.leads:
                self._send(_ENDED)
            while not self.leads and not self._ended:
                self._ended = self._received()[1] == _ENDED
            self._compared((self._request, self._calls, failed, self._missed), None)
        self._check()

    def _compared(self, same: Any, reason: str | None) -> list[str | None]:
        """Exchange reasons for refusal with all ranks, and return them all; raise if ``same`` differs among ranks."""
        if self._group is None:
            return [reason]
        answers: list[Any] = [None] * dist.get_world_size()
        self._talk(lambda: dist.all_gather_object(answers, (same, reason), group=self._group))
        if any(other != same for other, _ in answers):
            self._break("an error, or a request, was not in all of them")
        return [reason for _, reason in answers]

    def _place(self) -> tuple[int, list[int]]:
        """Return the number of the request, and those of the running calls of :meth:`together`, the outermost first."""
        return self._request, self._open

    def _send(self, name: str, *arguments: Any) -> None:
        if self._group is not None:
            moved = tuple(value.cpu() if isinstance(value, torch.Tensor) else value for value in arguments)
            message = [(self._place(), name, moved)]
            self._talk(lambda: dist.broadcast_object_list(message, src=0, group=self._group))

    def _received(self) -> Any:
        received: list[Any] = [None]
        self._talk(lambda: dist.broadcast_object_list(received, src=0, group=self._group))
        return received[0]

    def _talk(self, exchange: Callable[[], object]) -> None:
        """Exchange a message with the other ranks; after one failed exchange, always raise.

        Raises:
            CannotSteer: a rank has ended, or does not answer in time.
        """
        if self._lost:
            self._check()
        try:
            exchange()
        except RuntimeError:
            self._lost = True
            _log.exception("a rank does not answer")
            self._break("a rank has ended, or does not answer")

    def _break(self, reason: str) -> NoReturn:
        self.broken = self.broken or reason
        self._check()
        raise AssertionError

    def _check(self) -> None:
        """Check that the ranks can still draw together.

        Raises:
            CannotSteer: the ranks are out of step.
        """
        if self.broken:
            raise CannotSteer(f"the ranks are out of step: {self.broken}", hint="Restart the server.")
