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

_MODULE = "diffusers.pipelines.pipeline_utils"


def install() -> None:
    """Make ``pipe.callback_on_step_end = guard`` work for every pipeline, without importing diffusers."""
    if _MODULE in sys.modules:
        _put_attribute()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds one module the ordinary way, and runs one function after it was loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
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
        _put_attribute()


def _put_attribute() -> None:
    from dnp_guard.hosts.diffusers.attach import put_attribute  # noqa: PLC0415 (imports diffusers)

    put_attribute()
