"""Read the clock by which generations are timed."""

from __future__ import annotations

import time

import torch


def now(device: str) -> float:
    """Return a time in seconds; only the difference of two calls has a meaning.

    On a GPU this is wall time, read after the GPU has finished its work. On a CPU this is the processor time of this
    process, because wall time depends on other programs; on an idle machine the two are equal for one thread.

    Args:
        device: type of the device that generates, such as ``cuda``.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
