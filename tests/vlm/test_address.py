from __future__ import annotations

import pytest

from dnp_guard.errors import VlmUnavailable
from dnp_guard.vlm.remote.address import address, allowed


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/v1", "http://127.8.8.8", "http://[::1]:8000", "http://localhost:1", "http://LOCALHOST"],
)
def test_this_machine_is_known_by_its_address(url):
    assert address(url).loopback


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.example.com", "http://localhost.example.com", "http://10.0.0.1", "http://0.0.0.0"]
)
def test_another_machine_is_not_taken_for_this_one(url):
    assert not address(url).loopback


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/v1", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("http://", "not an http"),
        ("http://user:secret@host", "user or a password"),
        ("http://host/v1?key=secret", "query"),
        ("http://host/v1#x", "fragment"),
        ("http://host/v1/../admin", "plain"),
        ("http://host/%2e%2e", "plain"),
        ("http://host/a b", "plain"),
        ("http://host:99999", "Port out of range"),
        ("http://[::1", "Invalid IPv6"),
    ],
)
def test_an_address_that_could_mean_another_is_refused(url, why):
    with pytest.raises(VlmUnavailable, match=why):
        address(url)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(VlmUnavailable) as raised:
        address("http://user:hunter2@host")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "entry", "expected"),
    [
        ("https://host/v1", "https://host", True),
        ("https://host/v1", "https://host/v1/", True),
        ("https://host:443/v1", "https://HOST/v1", True),
        ("https://host/v10", "https://host/v1", False),
        ("https://host.evil/v1", "https://host", False),
        ("https://host:8443/v1", "https://host", False),
        ("http://host/v1", "https://host", False),
        ("http://127.0.0.1:8000/v1", "local", True),
        ("https://host/v1", "local", False),
    ],
)
def test_an_allow_list_compares_scheme_host_port_and_path(url, entry, expected):
    assert allowed(url, [entry]) is expected
