"""How the guard of an engine's workers is set up: one file, or environment variables, or both."""

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
"""The environment variable that names the file."""

_PREFIX = "DNP_GUARD_ENGINE_"


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"dnp-guard-engine-{getattr(os, 'getuid', lambda: 'user')()}"


class EngineSettings(BaseModel):
    """What a worker needs to know.

    Attributes:
        policy: path or shipped name.
        vlm: spec of the backend.
        audit: specs of the audit sinks; ``{pid}`` in one stands for the worker's process.
        on_failure: whether a worker that cannot guard refuses (``closed``), or serves unguarded and says so (``open``).
            What becomes of an image that could not be looked at is the policy's own ``on_failure``.
        state: the folder in which workers say what they guard by, for the middleware; one for each server.
        stricter: policies that requests may name, each a path or shipped name; merged into ``policy``, the strictest
            of both.
        tenant: whom it serves.
        require_signature: the public key, in base64, that policies have to be signed with.
        watch: whether the policy is reloaded when its file changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str = "default"
    vlm: str
    audit: tuple[str, ...] = ()
    on_failure: Literal["closed", "open"] = "closed"
    state: Path = Field(default_factory=_folder)
    stricter: dict[str, str] = Field(default_factory=dict)
    tenant: str | None = None
    require_signature: str | None = None
    watch: bool = False

    @property
    def sinks(self) -> list[str]:
        """The audit sinks of this process."""
        return [spec.replace("{pid}", str(os.getpid())) for spec in self.audit]


def read(environment: Mapping[str, str]) -> EngineSettings:
    """Read the settings: the file that ``DNP_GUARD_ENGINE_CONFIG`` names, and single variables, which come first.

    Raises:
        DnpGuardError: the file cannot be read, or a setting is unknown or wrong.
    """
    values: dict[str, Any] = _file(environment[FILE]) if environment.get(FILE) else {}
    for name in EngineSettings.model_fields:
        if given := environment.get(_PREFIX + name.upper()):
            values[name] = [given] if name == "audit" else given
    if isinstance(values.get("audit"), str):
        values["audit"] = [values["audit"]]
    try:
        return EngineSettings.model_validate(values)
    except ValidationError as error:
        raise DnpGuardError(_said(error, environment.get(FILE)), hint=_hint(error)) from None


def state_of(environment: Mapping[str, str]) -> Path:
    """The folder in which workers say what they guard by, even where the other settings are wrong."""
    try:
        return read(environment).state
    except DnpGuardError:
        return Path(environment.get(f"{_PREFIX}STATE") or _folder())


def opened(environment: Mapping[str, str]) -> bool:
    """Whether workers that cannot guard may serve: only where the settings can be read and say so."""
    try:
        return read(environment).on_failure == "open"
    except DnpGuardError:
        return False


def _file(name: str) -> dict[str, Any]:
    try:
        values = YAML(typ="safe").load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise DnpGuardError(f"{FILE}: {name} cannot be read: {error}", hint="Name a YAML or JSON file.") from None
    if not isinstance(values, dict):
        raise DnpGuardError(f"{FILE}: {name} holds no settings", hint="Write `policy: default` and the like.")
    return values


def _said(error: ValidationError, file: str | None) -> str:
    places = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return f"the settings of the engine's guard ({file or f'{_PREFIX}…'}) do not check: {places}"


def _hint(error: ValidationError) -> str:
    unknown = [str(each["loc"][0]) for each in error.errors() if each["type"] == "extra_forbidden"]
    if unknown:
        return did_you_mean(unknown[0], list(EngineSettings.model_fields))
    return f"Set vlm in the file of {FILE}, or {_PREFIX}VLM, such as systemone:MODEL@URL."
