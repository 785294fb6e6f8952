"""A policy names the servers that a guard may send images to."""

from __future__ import annotations

import pytest

from dnp_guard import Guard
from dnp_guard.errors import VlmUnavailable
from dnp_guard.vlm import ScriptedBackend
from tests.policies import policy, star
from tests.vlm import fault_server as faults


class Remote(ScriptedBackend):
    local = False

    def __init__(self, *addresses):
        super().__init__({})
        self.addresses = addresses


def made(of, backend):
    Guard(of, vlm=backend).close()
    return True


def test_a_server_that_is_listed_is_used():
    assert made(policy(vlm={"allow": ["https://models.example"]}), Remote("https://models.example/v1"))


@pytest.mark.parametrize("allow", [["local"], ["https://other.example"], ["https://models.example.org"]])
def test_a_server_that_is_not_listed_is_refused(allow):
    with pytest.raises(VlmUnavailable, match=r"vlm\.allow does not list it"):
        made(policy(vlm={"allow": allow}), Remote("https://models.example/v1"))


def test_every_address_that_takes_over_must_be_listed():
    with pytest.raises(VlmUnavailable, match="does not list it"):
        made(policy(vlm={"allow": ["https://a.example"]}), Remote("https://a.example/v1", "https://b.example/v1"))


def test_a_server_of_this_machine_counts_as_local():
    with faults.running() as server:
        assert made(policy(vlm={"allow": ["local"]}), f"systemone:m@{server.url}")
        with pytest.raises(VlmUnavailable, match="does not list it"):
            made(policy(vlm={"allow": ["https://models.example"]}), f"systemone:m@{server.url}")


def test_a_sensitive_category_reaches_no_other_machine_though_it_is_listed():
    of = policy(categories=[star(sensitive=True)], vlm={"allow": ["https://models.example"]})
    with pytest.raises(VlmUnavailable, match="sensitive"):
        made(of, Remote("https://models.example/v1"))
