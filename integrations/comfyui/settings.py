"""Read the operator's settings from ``dnp_guard.json`` beside this file and from the environment, which goes first.

If the file is there and ``locked``, or every workflow is guarded, a workflow can name a policy to be stricter by, and
choose nothing else.
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
"""Keys of the same file that another host's integration reads."""

_CHOICES = {"on_failure": ("closed", "open"), "enforce": ("off", "server")}


class BadSettings(Exception):
    """The settings cannot be used; nothing is generated until they are mended."""


@dataclass(frozen=True)
class Settings:
    """The settings of the guard.

    Attributes:
        url: address of the guard service.
        token_file: file of its bearer token; ignored if ``DNP_GUARD_TOKEN`` is set.
        token: the bearer token.
        policy: the policy in process; with the service, a further one to be stricter by. Empty for the default.
        vlm: the backend in process; empty to use the service.
        audit: destination of the records in process; empty for none.
        on_failure: the reaction to a failure without a session, and so without a policy.
        enforce: ``server`` guards every queued workflow, ``off`` only those with the nodes.
        locked: whether workflows may not choose the backend.
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
        """Show the settings without the token."""
        return f"Settings(url={self.url!r}, policy={self.policy!r}, vlm={self.vlm!r}, enforce={self.enforce!r})"


def load(file: Path = FILE, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force.

    Raises:
        BadSettings: the file cannot be read or understood.
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
    """Apply a workflow's choices to the settings, if it may choose.

    Args:
        settings: the operator's.
        vlm: a backend in process; empty for the operator's.
        service: address of the service; empty for the operator's.
        mode: ``in process``, ``service``, or ``auto``: in process if there is a backend.
    """
    if settings.locked or settings.enforce == "server":
        return settings
    # The token is for the service of the operator, and goes to no other.
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
