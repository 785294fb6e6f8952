"""Run a function as soon as other code imports a module; at once if the module is already imported."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def after_import(module: str, run: Callable[[ModuleType], None]) -> None:
    """Call a function with a module as soon as other code imports it; at once if it is already imported.

    If the function raises an error, the import raises it.

    Args:
        module: dotted name of the module. Only the first function registered for a module is called.
        run: called once, with the loaded module.
    """
    if module in sys.modules:
        run(sys.modules[module])
    elif not any(isinstance(finder, _Finder) and finder.module == module for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(module, run))


class _Finder(MetaPathFinder):
    """An import finder for one module: it finds the module the ordinary way, and calls a function after it loads."""

    def __init__(self, module: str, run: Callable[[ModuleType], None]) -> None:
        self.module = module
        self.run = run

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
        if self._finder in sys.meta_path:  # not needed once loaded; a failed import comes here again
            sys.meta_path.remove(self._finder)
        self._finder.run(module)
