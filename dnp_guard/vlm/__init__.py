"""Asking vision-language models: the contract, and the backends that keep it.

Nothing here imports torch; :class:`dnp_guard.vlm.local.backend.TransformersBackend` does, when it is imported.
"""

from dnp_guard.vlm.base import Asked, Backend, BackendInfo, Query, as_backend
from dnp_guard.vlm.desk import Answers, Desk, desk_of
from dnp_guard.vlm.either import AtFinal, Either
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
