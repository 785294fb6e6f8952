"""Read the operator's settings: environment variables override the settings page, which overrides the extension's file.

A file that is ``locked`` shuts the settings page out. The token comes from the environment or a file only, because the
host shows every option of the page to users of its API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .connection import plain_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE = "dnp_guard.json"
"""Name of the configuration file, in the extension's folder."""

DECODERS = {"Full": 0, "Approx NN": 1, "Approx cheap": 2, "TAESD": 3}
"""The host's methods of decoding a preview, mapped to the host's numbers for them."""

ON_FAILURE = ("closed", "open")


class BadSettings(Exception):
    """The settings cannot be used; all images are withheld until they are corrected."""


@dataclass(frozen=True)
class Settings:
    """The settings that guard a job.

    Attributes:
        url: address of the guard service.
        token_file: file of the bearer token; ignored if ``DNP_GUARD_TOKEN`` is set.
        token: the bearer token.
        policy: name of a policy to apply on top of the service's own; empty for none.
        on_failure: ``closed`` or ``open``: whether to withhold images or let them pass if no session can be opened,
            because the service's policy, which decides in all other cases, is then unknown.
        locked: whether users can see these settings but not change them.
        decoder: how a preview is decoded, a key of :data:`DECODERS`.
        start: command line that starts the service; empty if somebody else starts it.
        start_s: seconds that a job may wait for a starting service.
        enabled: whether a job is guarded.
    """

    url: str = "http://127.0.0.1:8777"
    token_file: str = ""
    token: str = ""
    policy: str = ""
    on_failure: str = "closed"
    locked: bool = True
    decoder: str = "Full"
    start: tuple[str, ...] = ()
    start_s: float = 120.0
    enabled: bool = True

    def __repr__(self) -> str:
        """Show some of the settings, but not the secret token."""
        return f"Settings(url={self.url!r}, policy={self.policy!r}, on_failure={self.on_failure!r})"


OPTIONS = ("url", "policy", "on_failure", "locked", "decoder")
"""Names of the settings that the host's settings page shows."""

_FILE_KEYS = {"url", "token_file", "policy", "on_failure", "locked", "decoder", "start", "start_s"}
_ENVIRONMENT = ("url", "token_file", "token", "policy", "on_failure")


def option(name: str) -> str:
    """Return the host's name for one of :data:`OPTIONS`."""
    return f"dnp_guard_{name}"


def from_file(folder: Path) -> Settings:
    """Return the settings of the extension's file, with defaults for those that it does not name.

    Raises:
        BadSettings: the file cannot be read or understood.
    """
    file = folder / FILE
    if not file.exists():
        return Settings()
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"{file}: {error}. Mend the file, or remove it.") from error
    if not isinstance(values, dict) or not set(values) <= _FILE_KEYS:
        raise BadSettings(f"{file}: its keys may be {', '.join(sorted(_FILE_KEYS))}.")
    if "start" in values:
        values["start"] = tuple(values["start"])
    return checked(replace(Settings(), **values), str(file))


def load(folder: Path, options: Any, environment: Mapping[str, str]) -> Settings:
    """Return the settings in force, from file, settings page and environment.

    Args:
        folder: folder of the extension.
        options: the host's options, which hold the values of the settings page; ignored if the file is locked.
        environment: the environment variables, such as ``DNP_GUARD_URL``.

    Raises:
        BadSettings: the settings cannot be used.
    """
    settings = from_file(folder)
    if not locked(folder, settings):
        chosen = {name: getattr(options, option(name), None) for name in OPTIONS}
        settings = replace(settings, **{name: value for name, value in chosen.items() if value is not None})
    named: dict[str, Any] = {name: environment.get(f"DNP_GUARD_{name.upper()}") for name in _ENVIRONMENT}
    settings = replace(settings, **{name: value for name, value in named.items() if value})
    settings = checked(settings, "the settings of DNP Guard")
    return replace(settings, token=_token(settings))


def locked(folder: Path, settings: Settings) -> bool:
    """Return whether the extension's file exists and keeps the host's settings page from changing anything."""
    return (folder / FILE).exists() and settings.locked


def fixed(folder: Path, settings: Settings, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of :data:`OPTIONS` that the settings page cannot change.

    Args:
        folder: folder of the extension.
        settings: settings of the extension's file.
        environment: environment variables, which override the settings page.
    """
    if locked(folder, settings):
        return OPTIONS
    return tuple(name for name in OPTIONS if name in _ENVIRONMENT and environment.get(f"DNP_GUARD_{name.upper()}"))


def checked(settings: Settings, where: str) -> Settings:
    """Check the values of settings, and return the settings.

    Args:
        settings: the settings to check.
        where: their source, such as a file, to be named in an error.

    Raises:
        BadSettings: a setting has an invalid value.
    """
    wrong = []
    if not str(settings.url).startswith(("http://", "https://")):
        wrong.append(f"url {settings.url!r} is no http or https address")
    if settings.on_failure not in ON_FAILURE:
        wrong.append(f"on_failure {settings.on_failure!r} is none of {', '.join(ON_FAILURE)}")
    if settings.decoder not in DECODERS:
        wrong.append(f"decoder {settings.decoder!r} is none of {', '.join(DECODERS)}")
    if wrong:
        raise BadSettings(f"{where}: {'; '.join(wrong)}.")
    return settings


def asked(settings: Settings, arguments: Sequence[Any], *, is_api: bool) -> Settings:
    """Return the settings for one job, after applying what its request may choose.

    A request may name a policy to apply on top, if the operator has named none. A user of the page may switch the
    guard off if the settings are not locked; a program that calls the API may not. Missing arguments change nothing.

    Args:
        settings: the settings in force.
        arguments: arguments of the script: enabled, policy.
        is_api: whether the request comes from a program through the host's API.
    """
    enabled, policy = (*arguments, None, None)[:2]
    if isinstance(policy, str) and policy and not settings.policy:
        settings = replace(settings, policy=policy)
    free = not (is_api or settings.locked)
    return replace(settings, enabled=settings.enabled and not (free and enabled is False))


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
