"""Give ``DiffusionPipeline`` the attribute ``callback_on_step_end``: now, or as soon as diffusers is imported."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dnp_guard.hosts.importing import after_import

if TYPE_CHECKING:
    from types import ModuleType

_MODULES = {
    "diffusers.pipelines.pipeline_utils": "put_attribute",
    "diffusers.modular_pipelines.modular_pipeline": "put_attribute_on_modular",
}
"""Modules that define a pipeline class, and the function of ``attach`` to run as soon as the module is imported."""


def install(guards: type) -> None:
    """Make ``pipe.callback_on_step_end = guard`` work for every pipeline, without importing diffusers.

    Args:
        guards: class of the values that the attribute accepts.
    """
    for module, name in _MODULES.items():
        after_import(module, partial(_put, name, guards))


def _put(name: str, guards: type, _module: ModuleType) -> None:
    from dnp_guard.hosts.diffusers import attach  # noqa: PLC0415 (imports diffusers)

    getattr(attach, name)(guards)
