"""Read the operator's settings from ``dnp_guard.json`` beside this file; environment variables override them.

If the file is ``locked``, or the server guards every workflow, a workflow may choose nothing but the name of a policy
to apply on top of the operator's own.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .connection import plain_token

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).parent / "dnp_guard.json"
_ENVIRONMENT = ("url", "token_file", "token", "policy", "vlm", "audit", "on_failure", "enforce")
_ELSEWHERE = {"decoder"}
"""Keys of the same file that only the integration of another host reads."""

_CHOICES = {"on_failure": ("closed", "open"), "enforce": ("off", "server")}


class BadSettings(Exception):
    """The settings cannot be used; nothing is generated until they are corrected."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings of the guard, after a workflow's permitted choices.

    Attributes:
        url: address of the guard service.
        token_file: file of its bearer token; ignored if ``DNP_GUARD_TOKEN`` is set.
        token: the bearer token.
        policy: in process, the policy (empty for the default one); with the service, a policy to apply on top of the
            service's own (empty for none).
        vlm: backend of the vision-language model in process; empty to use the service.
        audit: destination of the audit records in process; empty for none.
        on_failure: ``closed`` or ``open``: whether to withhold images or let them pass if no session can be opened,
            because the service's policy, which decides in all other cases, is then unknown.
        enforce: ``server`` guards every queued workflow, ``off`` only workflows that contain the guard's nodes.
        locked: whether workflows are kept from choosing the backend and the service.
        start: command line that starts the service; empty if somebody else starts it.
        start_s: seconds that a run may wait for a starting service.
    """

    url: str = "http://127.0.0.1:8777"
    token_file: str = ""
    token: str = ""
    policy: str = ""
    vlm: str = ""
    audit: str = ""
    on_failure: str = "closed"
    enforce: str = "off"
    locked: bool = False
    start: tuple[str, ...] = ()
    start_s: float = 120.0

    def __repr__(self) -> str:
        """Show some of the settings, but not the secret token."""
        return f"Settings(url={self.url!r}, policy={self.policy!r}, vlm={self.vlm!r}, enforce={self.enforce!r})"


def load(file: Path = FILE, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force, from the file and the environment.

    Raises:
        BadSettings: the file cannot be read or understood, or a setting has an invalid value.
    """
    settings = _from_file(file) if file.exists() else Settings()
    named = {name: environment.get(f"DNP_GUARD_{name.upper()}") for name in _ENVIRONMENT}
    settings = replace(settings, **{name: value for name, value in named.items() if value})
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise BadSettings(f"DNP Guard: {name} {getattr(settings, name)!r} is none of {', '.join(choices)}.")
    if not settings.url.startswith(("http://", "https://")):
        raise BadSettings(f"DNP Guard: url {settings.url!r} is no http or https address.")
    return replace(settings, token=_token(settings))


def chosen(settings: Settings, *, vlm: str, service: str, mode: str) -> Settings:
    """Return the settings with a workflow's choices, or unchanged if the operator has locked them.

    Args:
        settings: the operator's settings.
        vlm: the workflow's backend in process; empty for the operator's.
        service: the workflow's address of the service; empty for the operator's.
        mode: ``in process``, ``service``, or ``auto``: in process if there is a backend, otherwise the service.
    """
    if settings.locked or settings.enforce == "server":
        return settings
    # The token belongs to the operator's service, and must not be sent to another.
    elsewhere = service.rstrip("/") not in {"", settings.url.rstrip("/")}
    settings = replace(settings, url=service, token="") if elsewhere else settings
    return replace(settings, vlm="" if mode == "service" else vlm or settings.vlm)


def _from_file(file: Path) -> Settings:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"{file}: {error}. Mend the file, or remove it.") from error
    keys = {field.name for field in fields(Settings)} - {"token"}
    if not isinstance(values, dict) or not set(values) <= keys | _ELSEWHERE:
        raise BadSettings(f"{file}: its keys may be {', '.join(sorted(keys))}.")
    values = {"locked": True, **{key: value for key, value in values.items() if key in keys}}
    for field in fields(Settings):
        kind = type(getattr(Settings, field.name))
        value = values.get(field.name, getattr(Settings, field.name))
        accepted = {tuple: list | tuple, float: int | float}.get(kind, kind)
        if not isinstance(value, accepted):
            raise BadSettings(f"{file}: {field.name} {value!r} is no {kind.__name__}.")
    if "start" in values:
        values["start"] = tuple(values["start"])
    return Settings(**values)


def _token(settings: Settings) -> str:
    where = "DNP_GUARD_TOKEN"
    try:
        token = settings.token
        if not token and settings.token_file:
            where = settings.token_file
            token = Path(where).expanduser().read_text(encoding="utf-8")
        return plain_token(token)
    except OSError as error:
        raise BadSettings(f"{where}: the token cannot be read: {error.strerror}.") from error
    except ValueError:
        raise BadSettings(f"{where} holds no token: a token is one line of visible ASCII.") from None
