"""What the operator has set: the environment before the extension's own file before the host's settings page.

The token comes from the environment or a file only: the host shows every option to whoever may use its API.
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
"""Ways in which the host decodes a preview, and its numbers for them."""

ON_FAILURE = ("closed", "open")


class BadSettings(Exception):
    """Settings that cannot be used; the guard is closed until they are."""


@dataclass(frozen=True)
class Settings:
    """What a job is guarded with.

    Attributes:
        url: of the guard service.
        token_file: that holds the bearer token; ignored where ``DNP_GUARD_TOKEN`` is set.
        token: the bearer token.
        policy: name of one to be stricter by than what is in force at the service; empty for none.
        on_failure: where there is no session, and so no policy, that says it.
        locked: whether users see these settings without changing them.
        decoder: how a preview is decoded.
        start: command line that starts the service; empty where someone else does.
        start_s: how long a job may wait for a service that is starting.
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
        """Without the token."""
        return f"Settings(url={self.url!r}, policy={self.policy!r}, on_failure={self.on_failure!r})"


OPTIONS = ("url", "policy", "on_failure", "locked", "decoder")
"""What the settings page offers."""

_FILE_KEYS = {"url", "token_file", "policy", "on_failure", "locked", "decoder", "start", "start_s"}
_ENVIRONMENT = ("url", "token_file", "token", "policy", "on_failure")


def option(name: str) -> str:
    """The host's name of one of :data:`OPTIONS`."""
    return f"dnp_guard_{name}"


def from_file(folder: Path) -> Settings:
    """The defaults with what the extension's file says.

    Raises:
        BadSettings: it cannot be read, or says what nobody understands.
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
    """The settings in force.

    Args:
        folder: of the extension.
        options: the host's; read only where neither file nor environment locks them.
        environment: ``DNP_GUARD_URL`` and so on.

    Raises:
        BadSettings: they cannot be used.
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
    """Whether the extension's file, of which ``settings`` are, is not overruled by the host's settings page."""
    return (folder / FILE).exists() and settings.locked


def fixed(folder: Path, settings: Settings, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Those of :data:`OPTIONS` that the settings page does not change.

    Args:
        folder: of the extension.
        settings: those of its file.
        environment: overrules the page for each setting that it names.
    """
    if locked(folder, settings):
        return OPTIONS
    return tuple(name for name in OPTIONS if name in _ENVIRONMENT and environment.get(f"DNP_GUARD_{name.upper()}"))


def checked(settings: Settings, where: str) -> Settings:
    """The same settings.

    Raises:
        BadSettings: one has a value that it cannot have.
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
    """The settings of one job, with what its request asks for.

    Whoever asks may name a policy to be stricter by, where the operator has named none. A user of the page may switch
    the guard off where that is not locked; a program that calls the API may not. What is absent changes nothing.

    Args:
        settings: in force.
        arguments: the script's: enabled, policy.
        is_api: whether a program called.
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
