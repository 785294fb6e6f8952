"""Install, check and remove an integration in a host's folder, by a manifest of the installed files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnp_guard._version import __version__
from dnp_guard.errors import DnpGuardError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = "dnp-guard"
"""Name of the integration's folder in the host's folder."""

MANIFEST = ".dnp-guard-installed.json"
CONFIGURATION = "dnp_guard.json"
_PACKAGE = Path(__file__).resolve().parents[1]
_MADE_BY_PYTHON = "__pycache__"


class CannotInstall(DnpGuardError):
    """An integration cannot be installed into a folder, or removed from it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of host program that the guard can be installed into.

    Attributes:
        name: name of the integration.
        within: name of the host's folder of extensions.
    """

    name: str
    within: str


KINDS = {kind.name: kind for kind in (Kind("a1111", "extensions"), Kind("comfyui", "custom_nodes"))}


class Installation:
    """The guard's integration in one host: its files and settings in a folder of the host.

    Args:
        kind: kind of the host.
        host: folder of the host, which contains ``extensions`` or ``custom_nodes``.

    Raises:
        CannotInstall: the folder is not that of such a host.
    """

    def __init__(self, kind: Kind, host: Path) -> None:
        if not (host / kind.within).is_dir():
            reason = f"has no folder named '{kind.within}'" if host.is_dir() else "is not a folder"
            raise CannotInstall(
                f"{host} {reason}, so {kind.name} is not installed there",
                hint=f"Give the folder of {kind.name}, which contains '{kind.within}'.",
            )
        self.kind = kind
        self.host = host
        self.folder = host / kind.within / FOLDER
        self._source = _source(kind.name)

    def put(self, configuration: Mapping[str, Any]) -> int:
        """Install the integration, or update it.

        Args:
            configuration: settings to write; others stay the same.

        Returns:
            Number of files of the integration.

        Raises:
            CannotInstall: a file to overwrite was changed or was not installed by this command, or the settings cannot
                be read; nothing was written.
        """
        before = self._manifest()
        settings = {**self._settings(), **configuration}
        files = {name: self._source / name for name in _names(self._source)}
        if self.folder.exists() and before is None and any(self.folder.iterdir()):
            raise CannotInstall(f"{self.folder} already exists", hint="Remove it if nobody needs it.")
        in_the_way = [name for name in files if self._foreign(name, files[name], before or {})]
        if in_the_way:
            raise CannotInstall(
                f"{self.folder}: changed, or not of this integration: {', '.join(in_the_way)}",
                hint="Save your own changes elsewhere, remove these files, and try again.",
            )
        self.folder.mkdir(exist_ok=True)
        for name, digest in (before or {}).items():
            old = self.folder / name
            if name not in files and old.is_file() and _digest(old) == digest:
                old.unlink()
        for name, source in files.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        _write(self.folder / CONFIGURATION, settings)
        digests = {name: _digest(source) for name, source in sorted(files.items())}
        _write(self.folder / MANIFEST, {"integration": self.kind.name, "version": __version__, "files": digests})
        return len(files)

    def problems(self) -> list[Problem]:
        """List missing, changed and outdated files of the installation, and mistakes in its settings."""
        manifest = self._manifest()
        if manifest is None:
            hint = f"Run dnp-guard install {self.kind.name} {self.host}"
            return [Problem(str(self.folder), 0, 0, "not-installed", f"{self.kind.name} is not installed.", hint)]
        again = f"Run dnp-guard install {self.kind.name} {self.host} again."
        problems = []
        for name, digest in manifest.items():
            file = self.folder / name
            if not file.is_file():
                problems.append(Problem(str(file), 0, 0, "missing", "the file is missing.", again))
            elif _digest(file) != digest:
                problems.append(Problem(str(file), 0, 0, "changed", "the file was changed.", again))
        current = {name: _digest(self._source / name) for name in _names(self._source)}
        if current != manifest and not problems:
            problems.append(Problem(str(self.folder), 0, 0, "outdated", "another version is installed.", again))
        return problems + self._misconfigured()

    def remove(self) -> list[Path]:
        """Remove the integration.

        Returns:
            Files left in the integration's folder, which were not installed.

        Raises:
            CannotInstall: the integration is not installed.
        """
        manifest = self._manifest()
        if manifest is None:
            raise CannotInstall(f"{self.folder} has no installation", hint="There is nothing to remove.")
        for name in (*manifest, CONFIGURATION, MANIFEST):
            (self.folder / name).unlink(missing_ok=True)
        for cache in list(self.folder.rglob(_MADE_BY_PYTHON)):
            for file in cache.glob("*.py[co]"):
                file.unlink()
        for folder in sorted(self.folder.rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        _forget_settings(self.host / "config.json")
        left = sorted(self.folder.iterdir())
        if not left:
            self.folder.rmdir()
        return left

    def _foreign(self, name: str, source: Path, before: Mapping[str, str]) -> bool:
        """Return whether writing a file would overwrite one that was changed, or was not installed."""
        target = self.folder / name
        return target.exists() and _digest(target) not in {before.get(name), _digest(source)}

    def _manifest(self) -> dict[str, str] | None:
        """Read the digests of the installed files by name; None if nothing is installed."""
        try:
            document = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, str] = document["files"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotInstall(
                f"{self.folder / MANIFEST} cannot be read", hint="Remove the integration's folder by hand."
            ) from error
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise CannotInstall(
                f"{self.folder / MANIFEST} names files outside the folder",
                hint="Remove the integration's folder by hand.",
            )
        return files

    def _settings(self) -> dict[str, Any]:
        """Read the configuration file; empty if there is none."""
        file = self.folder / CONFIGURATION
        try:
            settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except (OSError, ValueError) as error:
            raise CannotInstall(f"{file} cannot be read: {error}", hint="Mend the file, or remove it.") from error
        if not isinstance(settings, dict):
            raise CannotInstall(f"{file} has no JSON object", hint="Mend the file, or remove it.")
        return settings

    def _misconfigured(self) -> list[Problem]:
        file = self.folder / CONFIGURATION
        try:
            values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            token = Path(values["token_file"]).expanduser() if values.get("token_file") else None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return [Problem(str(file), 0, 0, "configuration", str(error), "Mend the file, or remove it.")]
        if token is not None and not token.is_file():
            hint = "Write the token to it, readable only by the host's user."
            return [Problem(str(file), 0, 0, "token", f"its token_file {token} does not exist.", hint)]
        return []


def _source(name: str) -> Path:
    """Return the folder of an integration's files, in the package or beside it."""
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / "integrations" / name).is_dir():
            return root / "integrations" / name
    raise CannotInstall(f"this installation lacks the integration {name}", hint="Reinstall dnp-guard.")


def _names(source: Path) -> Iterator[str]:
    for file in sorted(source.rglob("*")):
        if file.is_file() and _MADE_BY_PYTHON not in file.parts:
            yield file.relative_to(source).as_posix()


def _digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _forget_settings(file: Path) -> None:
    """Remove the integration's settings from the host's own settings file, and keep the host's format."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(settings, dict):
        return
    remaining = {name: value for name, value in settings.items() if not name.startswith("dnp_guard_")}
    if remaining != settings:
        file.write_text(json.dumps(remaining, indent=4, ensure_ascii=False), encoding="utf-8")
