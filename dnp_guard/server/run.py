"""Run the service: one process, or several that share its sessions."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import ssl
import sys
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from dnp_guard.errors import DnpGuardError, PolicyError
from dnp_guard.policy.force.rollout import without_tests
from dnp_guard.policy.force.store import as_store
from dnp_guard.server.app import create
from dnp_guard.server.console.serving import log_of
from dnp_guard.server.settings import VARIABLE, Settings
from dnp_guard.server.tokens import Tokens
from dnp_guard.server.wire import Bounded, affordable

if TYPE_CHECKING:
    from asyncio import Protocol
    from collections.abc import Callable

    from dnp_guard.errors import Problem

_FACTORY = "dnp_guard.server.app:from_environment"
_BACKLOG = 2048
_IDLE_S = 75
"""Seconds for which a connection waits for its next request; a step may take long."""
_HEALTHY_S = 30
"""Seconds after which a worker that does not respond is replaced."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the service listens.

    Attributes:
        host: address or name.
        port: 0 for any free port.
        certificate: TLS certificate file.
        key: file of the certificate's private key.
        clients: file of the certificate authorities, one of which must have issued a client's certificate; None if
            clients need no certificate.
    """

    host: str = "127.0.0.1"
    port: int = 8777
    certificate: Path | None = None
    key: Path | None = None
    clients: Path | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def check(address: Listener, settings: Settings, *, plain_http: bool) -> None:
    """Check that traffic to other machines is protected.

    Raises:
        DnpGuardError: traffic would be unencrypted, anyone could use the service, a certificate file is missing, or
            others can read the private key.
    """
    if (address.certificate is None) != (address.key is None):
        raise DnpGuardError("a certificate and its key go together", hint="Give --tls-cert and --tls-key.")
    if address.clients is not None and address.certificate is None:
        raise DnpGuardError("client certificates need TLS", hint="Give --tls-cert and --tls-key.")
    for file in (address.certificate, address.key, address.clients):
        if file is not None and not file.is_file():
            raise DnpGuardError(f"{file}: no such file", hint="Give PEM files.")
    if address.key is not None and sys.platform != "win32" and address.key.stat().st_mode & 0o027:
        raise DnpGuardError(
            f"{address.key}: others may read the key, or its group may change it",
            hint=f"chmod 600 {address.key}",
        )
    if address.loopback:
        return
    if settings.token_file is None:
        raise DnpGuardError(
            f"{address.host} can be reached from other machines, and anyone could use it", hint="Give --token-file."
        )
    if address.certificate is None and not plain_http:
        raise DnpGuardError(
            f"{address.host} can be reached from other machines, and images would be unencrypted",
            hint="Give --tls-cert and --tls-key; or --plain-http if a proxy ends TLS or the network is private.",
        )


def check_tested(settings: Settings) -> list[Problem]:
    """Check that every enforced policy has tests. A service that reloads its policies cannot start without them.

    Returns:
        One problem per enforced policy without tests, for a service that does not reload its policies.

    Raises:
        PolicyError: the service reloads policies and one has no tests, or a policy is invalid.
    """
    problems = list(without_tests(as_store(settings.policy)))
    if problems and settings.watch:
        raise PolicyError(problems)
    return problems


def run(address: Listener, settings: Settings, *, workers: int, grace_s: int, started: Callable[[str], None]) -> int:
    """Serve until a signal ends the process; requests in flight are still answered.

    Args:
        address: where to listen.
        settings: settings of the service.
        workers: number of processes.
        grace_s: seconds that requests in flight have to finish.
        started: called with the base URL once the socket is bound.

    Returns:
        The exit code.

    Raises:
        DnpGuardError: the address cannot be bound, or something that the settings name cannot be opened.
    """
    # Report errors in these before a model is loaded, once, and not per worker.
    as_store(settings.policy)
    tokens = Tokens(settings.token_file)
    if settings.console:
        log_of(settings, tokens)
    limits = settings.limits
    with ExitStack() as stack:
        if workers > 1:
            settings = _shared(settings, Path(stack.enter_context(TemporaryDirectory(prefix="dnp-guard-"))), stack)
        bounded = partial(Bounded, most=affordable(limits.connections), request_s=limits.request_s)
        config = uvicorn.Config(
            _FACTORY if workers > 1 else create(settings),
            factory=workers > 1,
            http=cast("type[Protocol]", bounded),
            ws="none",
            host=address.host,
            port=address.port,
            workers=workers,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=grace_s,
            timeout_worker_healthcheck=_HEALTHY_S,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
            ssl_ca_certs=str(address.clients) if address.clients else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if address.clients else ssl.CERT_NONE,
        )
        listening = stack.enter_context(closing(_bound(address)))
        host = f"[{address.host}]" if ":" in address.host else address.host
        # Whoever is told the address may end the service at once, so install the signal's handler first. When all
        # requests are answered, the server raises the signal that ended it again, for the same handler.
        parent = Multiprocess(config, sockets=[listening]) if workers > 1 else None
        server = uvicorn.Server(config)
        if parent is None:
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, server.handle_exit))
        started(f"{'https' if address.certificate else 'http'}://{host}:{listening.getsockname()[1]}")
        if parent is not None:
            parent.run()
            return 2 if any(process.exitcode == STARTUP_FAILURE for process in parent.processes) else 0
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        return 0


def _shared(settings: Settings, folder: Path, stack: ExitStack) -> Settings:
    """Set up the store, the metrics folder and the settings for several workers, until the exit stack is closed."""
    metrics = folder / "metrics"
    metrics.mkdir()
    settings = settings.model_copy(update={"parent": os.getpid(), "shared": folder})
    if settings.store == Settings.model_fields["store"].default:
        settings = settings.model_copy(update={"store": f"sqlite:{folder / 'sessions.sqlite'}"})
    for name, value in {"PROMETHEUS_MULTIPROC_DIR": str(metrics), VARIABLE: settings.model_dump_json()}.items():
        os.environ[name] = value
        stack.callback(os.environ.pop, name, None)
    return settings


def _bound(address: Listener) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        bound = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise DnpGuardError(
            f"cannot listen at {address.host}, port {address.port}: {str(error.strerror).partition(' (while')[0]}",
            hint="Give another --port if another service listens there, and a --host of this machine.",
        ) from error
    bound.set_inheritable(True)
    return bound
