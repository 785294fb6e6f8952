"""Decide which addresses pictures may be sent to."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dnp_guard.errors import VlmUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """The base URL of an endpoint, normalised.

    Attributes:
        scheme: ``http`` or ``https``.
        host: name or address of the host, in lower case.
        port: the scheme's default if the URL names none.
        path: without a trailing slash.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The address as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def loopback(self) -> bool:
        """Whether the host is ``localhost`` or a loopback address; other names are not resolved."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def within(self, other: Address) -> bool:
        """Return whether this address is the same as another one, or lies below its path."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and (self.path == other.path or self.path.startswith(f"{other.path}/"))


def address(url: str) -> Address:
    """Parse a base URL.

    Raises:
        VlmUnavailable: it is not an http(s) URL with a host, or it holds a user, a query, a fragment or ``..``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, str(error)) from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _refused(url, "it is not an http:// or https:// address of a host")
    if parts.username is not None or parts.password is not None:
        raise _refused(parts.hostname, "it holds a user or a password")
    if parts.query or parts.fragment:
        raise _refused(url, "it holds a query or a fragment")
    if ".." in parts.path or "%" in parts.path or "\\" in url or any(sign.isspace() for sign in url):
        raise _refused(url, "its path is not a plain one")
    return Address(parts.scheme, parts.hostname.rstrip("."), port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def allowed(url: str, allow: Iterable[str]) -> bool:
    """Return whether a policy's ``vlm.allow`` lists an address; ``local`` stands for every address on this machine."""
    target = address(url)
    return any(target.loopback if entry == "local" else target.within(address(entry)) for entry in allow)


def _refused(url: str, why: str) -> VlmUnavailable:
    return VlmUnavailable(
        f"{url}: images are not sent there: {why}", hint="Write a base URL such as http://127.0.0.1:8000/v1."
    )
