"""Vision-language models: the contract of a backend, and the backends that implement it.

Importing this package does not import torch; importing :mod:`dnp_guard.vlm.local.backend` does.
"""

from dnp_guard.vlm.base import Asked, Backend, BackendInfo, Query, as_backend
from dnp_guard.vlm.combined import AtFinal, Either
from dnp_guard.vlm.desk import Answers, Desk, desk_of
from dnp_guard.vlm.scripted import ScriptedBackend

__all__ = [
    "Answers",
    "Asked",
    "AtFinal",
    "Backend",
    "BackendInfo",
    "Desk",
    "Either",
    "Query",
    "ScriptedBackend",
    "as_backend",
    "desk_of",
]
