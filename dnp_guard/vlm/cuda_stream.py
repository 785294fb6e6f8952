"""Give a model that answers while denoising goes on a CUDA stream of its own, so that neither waits for the other."""

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
    """Make a call that runs beside a generation."""
    token = _BESIDE.set(True)
    try:
        return call()
    finally:
        _BESIDE.reset(token)


@contextmanager
def own_stream() -> Iterator[None]:
    """Use a separate CUDA stream for a call beside a generation; do nothing without CUDA or outside such a call.

    Pictures and answers are in host memory, so nothing on the generation's stream has to finish first.
    """
    torch = sys.modules.get("torch")
    if not _BESIDE.get() or torch is None or not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
