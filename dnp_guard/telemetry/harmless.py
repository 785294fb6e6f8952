"""What observes a generation may fail; the generation goes on."""

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
    """Wrap a function so that what it raises is logged, and None returned."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception:  # noqa: BLE001 (an exporter may raise anything)
            _log.warning("telemetry failed in %s; the generation goes on", function.__qualname__, exc_info=True)
            return None

    return call
