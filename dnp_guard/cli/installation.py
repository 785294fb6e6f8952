"""An integration in a host's folder: put there, checked, and taken away again, by a list of what was put there."""

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
"""Name of the integration's folder within the host's."""

MANIFEST = ".dnp-guard-installed.json"
CONFIGURATION = "dnp_guard.json"
_PACKAGE = Path(__file__).resolve().parents[1]
_MADE_BY_PYTHON = "__pycache__"


class CannotInstall(DnpGuardError):
    """A folder into which an integration cannot be put, or from which it cannot be taken."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A host's kind of folder.

    Attributes:
        name: of the integration.
        within: the host's folder of extensions.
    """

    name: str
    within: str


KINDS = {kind.name: kind for kind in (Kind("a1111", "extensions"), Kind("comfyui", "custom_nodes"))}


class Installation:
    """One integration in one host.

    Args:
        kind: of the host.
        host: its folder, the one with ``extensions`` or ``custom_nodes`` in it.

    Raises:
        CannotInstall: it is no such folder.
    """

    def __init__(self, kind: Kind, host: Path) -> None:
        if not (host / kind.within).is_dir():
            what = f"has no folder named '{kind.within}' in it" if host.is_dir() else "is no folder"
            raise CannotInstall(
                f"{host} {what}, so {kind.name} is not there",
                hint=f"Give the folder that {kind.name} was installed into: the one that holds '{kind.within}'.",
            )
        self.kind = kind
        self.host = host
        self.folder = host / kind.within / FOLDER
        self._source = _source(kind.name)

    def put(self, configuration: Mapping[str, Any]) -> int:
        """Put the integration there, or bring it up to date.

        Args:
            configuration: settings to be written; those that it does not name stay as they are.

        Returns:
            How many files it consists of.

        Raises:
            CannotInstall: a file is in the way that was not put there, or was changed since, or the settings cannot be
                read; nothing was written.
        """
        before = self._manifest()
        settings = {**self._settings(), **configuration}
        files = {name: self._source / name for name in _names(self._source)}
        if self.folder.exists() and before is None and any(self.folder.iterdir()):
            raise CannotInstall(f"{self.folder} is there already", hint="Remove it if nobody needs it.")
        in_the_way = [name for name in files if self._foreign(name, files[name], before or {})]
        if in_the_way:
            raise CannotInstall(
                f"{self.folder}: changed, or not of this integration: {', '.join(in_the_way)}",
                hint="Keep what is yours elsewhere, remove these files, and try again.",
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
        """What is wrong with the installation; nothing where all is well."""
        manifest = self._manifest()
        if manifest is None:
            hint = f"Run dnp-guard install {self.kind.name} {self.host}"
            return [Problem(str(self.folder), 0, 0, "not-installed", f"{self.kind.name} is not installed.", hint)]
        again = f"Run dnp-guard install {self.kind.name} {self.host} again."
        found = []
        for name, digest in manifest.items():
            file = self.folder / name
            if not file.is_file():
                found.append(Problem(str(file), 0, 0, "missing", "it is not there.", again))
            elif _digest(file) != digest:
                found.append(Problem(str(file), 0, 0, "changed", "it is not as it was installed.", again))
        current = {name: _digest(self._source / name) for name in _names(self._source)}
        if current != manifest and not found:
            found.append(Problem(str(self.folder), 0, 0, "outdated", "another version is installed.", again))
        return found + self._misconfigured()

    def remove(self) -> list[Path]:
        """Take it away.

        Returns:
            What is left in its folder, put there by someone else.

        Raises:
            CannotInstall: it is not installed.
        """
        manifest = self._manifest()
        if manifest is None:
            raise CannotInstall(f"{self.folder} holds no installation", hint="There is nothing to remove.")
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
        """Whether a file that is to be written is somebody's own."""
        target = self.folder / name
        return target.exists() and _digest(target) not in {before.get(name), _digest(source)}

    def _manifest(self) -> dict[str, str] | None:
        """What was put there, with the digest of each file; None where nothing was."""
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
                f"{self.folder / MANIFEST} names files elsewhere", hint="Remove the integration's folder by hand."
            )
        return files

    def _settings(self) -> dict[str, Any]:
        """What the configuration file says; nothing where there is none."""
        file = self.folder / CONFIGURATION
        try:
            settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except (OSError, ValueError) as error:
            raise CannotInstall(f"{file} cannot be read: {error}", hint="Mend the file, or remove it.") from error
        if not isinstance(settings, dict):
            raise CannotInstall(f"{file} holds no JSON object", hint="Mend the file, or remove it.")
        return settings

    def _misconfigured(self) -> list[Problem]:
        file = self.folder / CONFIGURATION
        try:
            values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            token = Path(values["token_file"]).expanduser() if values.get("token_file") else None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return [Problem(str(file), 0, 0, "configuration", str(error), "Mend the file, or remove it.")]
        if token is not None and not token.is_file():
            hint = "Write the token there, readable by the host's user alone."
            return [Problem(str(file), 0, 0, "token", f"its token_file {token} is not there.", hint)]
        return []


def _source(name: str) -> Path:
    """The folder of an integration, in the package or beside it."""
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / "integrations" / name).is_dir():
            return root / "integrations" / name
    raise CannotInstall(f"this installation comes without the integration {name}", hint="Reinstall dnp-guard.")


def _names(source: Path) -> Iterator[str]:
    for file in sorted(source.rglob("*")):
        if file.is_file() and _MADE_BY_PYTHON not in file.parts:
            yield file.relative_to(source).as_posix()


def _digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _forget_settings(file: Path) -> None:
    """Take the integration's settings out of the host's own file, as the host writes it."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(settings, dict):
        return
    kept = {name: value for name, value in settings.items() if not name.startswith("dnp_guard_")}
    if kept != settings:
        file.write_text(json.dumps(kept, indent=4, ensure_ascii=False), encoding="utf-8")
