"""Protect generations from failures of telemetry."""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("dnp_guard.telemetry")


def harmless(function: Callable[P, R]) -> Callable[P, R | None]:
    """Wrap a function so that it logs its exceptions, and returns None instead of raising."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception:  # noqa: BLE001 (an exporter may raise anything)
            _log.warning("telemetry failed in %s; the generation continues", function.__qualname__, exc_info=True)
            return None

    return call
