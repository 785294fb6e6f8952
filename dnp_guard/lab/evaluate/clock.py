"""The clock that generations are timed by."""

from __future__ import annotations

import time

import torch


def now(device: str) -> float:
    """Seconds for the difference of two calls.

    On a GPU they are the wall's, once the GPU has nothing left to do. On a processor they are those that this process
    was given: other programs make a busy machine's wall clock say anything, and on an idle one thread's two are equal.

    Args:
        device: kind of the device that generates, such as ``cuda``.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
