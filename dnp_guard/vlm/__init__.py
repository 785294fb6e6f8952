"""Asking vision-language models: the contract, and the backends that keep it.

Nothing here imports torch; :class:`dnp_guard.vlm.local.backend.TransformersBackend` does, when it is imported.
"""

from dnp_guard.vlm.asking import Answers, Asker
from dnp_guard.vlm.base import Backend, BackendInfo, describe
from dnp_guard.vlm.scripted import ScriptedBackend

__all__ = ["Answers", "Asker", "Backend", "BackendInfo", "ScriptedBackend", "describe"]
