"""Settings of the guard in an engine's workers: from a file, environment variables, or both."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dnp_guard.errors import DnpGuardError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "DNP_GUARD_ENGINE_CONFIG"
"""Name of the environment variable with the path of the file."""

_PREFIX = "DNP_GUARD_ENGINE_"
_LISTS = ("audit", "stricter")


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"dnp-guard-engine-{getattr(os, 'getuid', lambda: 'user')()}"


class EngineSettings(BaseModel):
    """Settings of the guard in a worker (a process that runs an engine's model).

    Attributes:
        policy: path of the policy, or name of a shipped one.
        vlm: spec of the VLM backend, such as ``systemone:MODEL@URL``.
        audit: specs of the audit sinks; ``{pid}`` in a spec stands for the worker's process id.
        on_failure: whether a worker that cannot guard refuses (``closed``), or serves unguarded and reports it
            (``open``). The policy's own ``on_failure`` decides about images that could not be checked.
        state: folder for the workers' reports, which the middleware reads; one per server.
        stricter: paths or shipped names of policies that a request may name. A named policy is merged into ``policy``,
            so that the stricter of two rules applies.
        tenant: tenant whose requests the worker serves.
        require_signature: public key, in base64, that policies must be signed with.
        watch: whether the policy is reloaded when its file changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str = "default"
    vlm: str
    audit: tuple[str, ...] = ()
    on_failure: Literal["closed", "open"] = "closed"
    state: Path = Field(default_factory=_folder)
    stricter: tuple[str, ...] = ()
    tenant: str | None = None
    require_signature: str | None = None
    watch: bool = False

    @property
    def sinks(self) -> list[str]:
        """The specs of this process's audit sinks, with its id in place of ``{pid}``."""
        return [spec.replace("{pid}", str(os.getpid())) for spec in self.audit]


def read(environment: Mapping[str, str]) -> EngineSettings:
    """Read the settings from the file that ``DNP_GUARD_ENGINE_CONFIG`` names, and from variables, which override it.

    Raises:
        DnpGuardError: the file cannot be read, or a setting is unknown or invalid.
    """
    values: dict[str, Any] = _file(environment[FILE]) if environment.get(FILE) else {}
    for name in EngineSettings.model_fields:
        if given := environment.get(_PREFIX + name.upper()):
            values[name] = _parts(given) if name == "stricter" else given
    for name in _LISTS:
        if isinstance(values.get(name), str):
            values[name] = [values[name]]
    try:
        return EngineSettings.model_validate(values)
    except ValidationError as error:
        raise DnpGuardError(_said(error, environment.get(FILE)), hint=_hint(error)) from None


def state_of(environment: Mapping[str, str]) -> Path:
    """Return the folder for the workers' reports, even if the other settings are invalid."""
    try:
        return read(environment).state
    except DnpGuardError:
        return Path(environment.get(f"{_PREFIX}STATE") or _folder())


def opened(environment: Mapping[str, str]) -> bool:
    """Return whether the settings allow a worker without a guard to serve; False if they cannot be read."""
    try:
        return read(environment).on_failure == "open"
    except DnpGuardError:
        return False


def _parts(given: str) -> list[str]:
    return [part for part in given.split(os.pathsep) if part]


def _file(name: str) -> dict[str, Any]:
    try:
        values = YAML(typ="safe").load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise DnpGuardError(f"{FILE}: {name} cannot be read: {error}", hint="Name a YAML or JSON file.") from None
    if not isinstance(values, dict):
        raise DnpGuardError(f"{FILE}: {name} holds no settings", hint="Write `policy: default` and the like.")
    return values


def _said(error: ValidationError, file: str | None) -> str:
    places = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
    return f"the settings of the engine's guard ({file or f'{_PREFIX}…'}) are not valid: {places}"


def _hint(error: ValidationError) -> str:
    unknown = [str(problem["loc"][0]) for problem in error.errors() if problem["type"] == "extra_forbidden"]
    if unknown:
        return did_you_mean(unknown[0], list(EngineSettings.model_fields))
    if all(problem["loc"][0] in _LISTS for problem in error.errors()):
        return "Write a list, such as `stricter: [kids.yaml]`."
    return f"Set vlm in the file of {FILE}, or {_PREFIX}VLM, such as systemone:MODEL@URL."
