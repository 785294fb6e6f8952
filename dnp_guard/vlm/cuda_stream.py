"""Run queries on their own CUDA stream while the host continues to denoise, so that neither waits for the other."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_BESIDE: ContextVar[bool] = ContextVar("dnp_guard.vlm.beside", default=False)


def beside(call: Callable[[], T]) -> T:
    """Call a function that runs while a generation continues; :func:`own_stream` has an effect only inside it."""
    token = _BESIDE.set(True)
    try:
        return call()
    finally:
        _BESIDE.reset(token)


@contextmanager
def own_stream() -> Iterator[None]:
    """Run a ``with`` block on a new CUDA stream if :func:`beside` runs it and CUDA is available, else unchanged.

    Pictures and answers are in host memory, so the block need not wait for work on the generation's stream.
    """
    torch = sys.modules.get("torch")
    if not _BESIDE.get() or torch is None or not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
