"""A model that answers while the image is denoised on gets a CUDA stream of its own, so that neither waits in line."""

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
    """Make a call beside a running generation."""
    token = _BESIDE.set(True)
    try:
        return call()
    finally:
        _BESIDE.reset(token)


@contextmanager
def own_stream() -> Iterator[None]:
    """Hold a CUDA stream of its own, beside a running generation and where there is CUDA; otherwise nothing.

    Pictures and answers are on the host, so nothing on the generation's stream has to be waited for.
    """
    torch = sys.modules.get("torch")
    if not _BESIDE.get() or torch is None or not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
