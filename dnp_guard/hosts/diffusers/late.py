"""Put ``callback_on_step_end`` on ``DiffusionPipeline``: now, or when diffusers is imported."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MODULES = {
    "diffusers.pipelines.pipeline_utils": "put_attribute",
    "diffusers.modular_pipelines.modular_pipeline": "put_attribute_on_modular",
}
"""Where a pipeline class is defined, and what of ``attach`` is run once it is."""


def install(guards: type) -> None:
    """Make ``pipe.callback_on_step_end = guard`` work for every pipeline, without importing diffusers.

    Args:
        guards: the class of what may be put there.
    """
    waiting = {finder.module for finder in sys.meta_path if isinstance(finder, _Finder)}
    for module in _MODULES:
        if module in sys.modules:
            _put(module, guards)
        elif module not in waiting:
            sys.meta_path.insert(0, _Finder(module, guards))


class _Finder(MetaPathFinder):
    """Finds one module the ordinary way, and runs one function after it was loaded."""

    def __init__(self, module: str, guards: type) -> None:
        self.module = module
        self.guards = guards

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__loader__ = self._loader
        if self._finder in sys.meta_path:  # once loaded it is needed no more; an import that failed comes again
            sys.meta_path.remove(self._finder)
        _put(self._finder.module, self._finder.guards)


def _put(module: str, guards: type) -> None:
    from dnp_guard.hosts.diffusers import attach  # noqa: PLC0415 (imports diffusers)

    getattr(attach, _MODULES[module])(guards)
