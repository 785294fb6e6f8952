"""The plugin manager of a guard, for built-in plugins and for third-party plugins that the user allows by name.

Third-party plugins are found in the entry-point group ``dnp_guard`` and load only when named. Their hook
implementations are isolated: an exception is counted, and the generation continues. A plugin with a hook wrapper, which
could change the results of other plugins, is refused.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from dnp_guard import hookspecs
from dnp_guard.errors import DnpGuardError, PluginError, VlmUnavailable
from dnp_guard.vlm.base import as_backend
from dnp_guard.vlm.specs import offer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dnp_guard.audit.write.sinks import Sink
    from dnp_guard.vlm.base import Asked, Backend

ENTRY_POINTS = "dnp_guard"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """The origin of a third-party plugin, as the audit log records it.

    Attributes:
        name: name of the plugin's entry point, or class of a plugin object.
        distribution: installed package that offers the plugin; empty for a plugin object.
        version: version of that package; empty for a plugin object.
        sha256: hash of the package's files, in hexadecimal; empty for a plugin object.
    """

    name: str
    distribution: str = ""
    version: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        """Join name, distribution, version and hash in one phrase."""
        if not self.distribution:
            return self.name
        return f"{self.name} ({self.distribution} {self.version} sha256:{self.sha256})"


class Plugins:
    """The plugins of one guard.

    Args:
        builtin: the package's own plugins, which are trusted, so that their exceptions are raised.
        allowed: names of entry points, or plugin objects.
        on_error: called with plugin name, hook name and exception when an implementation raises.

    Raises:
        PluginError: no installed distribution offers a name, a plugin cannot be imported, or it has a hook wrapper.
    """

    def __init__(
        self,
        builtin: Iterable[object],
        allowed: Iterable[str | object],
        on_error: Callable[[str, str, BaseException], None],
    ) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.on_error = on_error
        self.third_party: list[PluginInfo] = []
        for plugin in builtin:
            self._manager.register(plugin)
        for item in allowed:
            self._add(item)

    @property
    def hook(self) -> Any:
        """The hooks, as functions with keyword arguments; each calls the plugins that implement the hook."""
        return self._manager.hook

    def backend(self, vlm: str | Asked) -> Backend:
        """Build the vision-language backend that a spec names, such as ``glyphs``, or adapt a given object.

        Raises:
            VlmUnavailable: no plugin knows the spec, the backend cannot be built, or the object is no backend.
        """
        built = self.hook.dnp_guard_vlm(spec=vlm) if isinstance(vlm, str) else vlm
        if built is None:
            raise VlmUnavailable(
                f"no backend knows the spec {vlm!r}",
                hint=f"{offer(str(vlm))} A plugin with other specs must be allowed by name.",
            )
        return as_backend(built)

    def sink(self, audit: str | Path | Sink) -> Sink:
        """Open the audit sink that a path or spec names, such as ``sqlite:PATH``, or return a given sink.

        Raises:
            AuditError: the sink cannot be opened.
        """
        if not isinstance(audit, str | Path):
            return audit
        return self.hook.dnp_guard_audit_sink(spec=os.fspath(audit))  # type: ignore[no-any-return]

    def _add(self, item: str | object) -> None:
        info, plugin = _load(item) if isinstance(item, str) else (PluginInfo(type(item).__name__), item)
        self._register(plugin, info.name, named=isinstance(item, str))
        for caller in self._manager.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                if implementation.hookwrapper or implementation.wrapper:
                    self._manager.unregister(plugin)
                    raise PluginError(
                        f"plugin {info.name!r}: {caller.name} is a hook wrapper",
                        hint="A wrapper could hide what other plugins and the guard do. Write an ordinary hookimpl.",
                    )
                implementation.function = self._isolated(  # type: ignore[misc]  # pluggy offers no other way
                    info.name, caller.name, implementation.function
                )
        self.third_party.append(info)

    def _register(self, plugin: object, name: str, *, named: bool) -> None:
        try:
            self._manager.register(plugin, name=name if named else None)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            message = " ".join(str(error).split())
            raise PluginError(
                f"plugin {name!r} does not fit: {message}", hint="Compare its hooks with the documentation."
            ) from error
        if not self._manager.get_hookcallers(plugin):
            raise PluginError(f"plugin {name!r} implements no hook", hint="Mark its functions with dnp_guard.hookimpl.")

    def _isolated(self, plugin: str, hook: str, function: Callable[..., object]) -> Callable[..., object]:
        @wraps(function)
        def call(*args: object) -> object:
            try:
                return function(*args)
            except DnpGuardError:
                if hook in _MAY_REFUSE:
                    raise
                self.on_error(plugin, hook, PluginError(f"plugin {plugin!r} raised in {hook}"))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 (a plugin may raise anything, SystemExit too)
                self.on_error(plugin, hook, error)
            return None

        return call


_MAY_REFUSE = frozenset({"dnp_guard_attach", "dnp_guard_vlm", "dnp_guard_audit_sink", "dnp_guard_detector"})
"""Hooks that run at construction, where an error of this package is the answer and no generation is running."""


def _load(name: str) -> tuple[PluginInfo, object]:
    points = list(metadata.entry_points(group=ENTRY_POINTS, name=name))
    if not points:
        offered = ", ".join(sorted({point.name for point in metadata.entry_points(group=ENTRY_POINTS)})) or "none"
        raise PluginError(
            f"no installed package offers a dnp_guard plugin named {name!r} (offered: {offered})",
            hint="Install its package, or remove the name from plugins=.",
        )
    if len(points) > 1:
        packages = ", ".join(sorted(point.dist.name for point in points if point.dist))
        raise PluginError(
            f"several installed packages offer a dnp_guard plugin named {name!r}: {packages}",
            hint="Uninstall all except the one that you trust.",
        )
    (point,) = points
    try:
        plugin = point.load()
    except Exception as error:
        raise PluginError(
            f"plugin {name!r} ({point.value}) cannot be imported: {error}", hint="Reinstall it."
        ) from error
    if point.dist is None:
        return PluginInfo(name), plugin
    return PluginInfo(name, point.dist.name, point.dist.version, _sha256(point.dist, point.module)), plugin


def _sha256(distribution: metadata.Distribution, module: str) -> str:
    """Hash an installed package: the SHA-256 of the output of ``sha256sum`` for its files, sorted by name.

    Compiled files and metadata are left out, since they differ between installations of the same files. The file of
    the plugin's module is always included, since an editable installation does not list its source files.
    """
    files = {
        str(file): Path(str(file.locate()))
        for file in distribution.files or ()
        if file.suffix != ".pyc" and not file.parent.name.endswith(".dist-info")
    }
    own = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    if own.is_file() and own.resolve() not in {path.resolve() for path in files.values()}:
        files[own.name] = own
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
        for name, path in sorted(files.items())
        if path.is_file()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def several(audit: str | Path | Sink | Sequence[str | Path | Sink] | None) -> list[str | Path | Sink]:
    """Return the value of ``Guard(audit=…)`` as a list."""
    if audit is None:
        return []
    return list(audit) if isinstance(audit, list | tuple) else [audit]  # type: ignore[list-item]
