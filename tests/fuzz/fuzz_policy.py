"""Fuzz the policy parser with atheris: it must return a policy or raise ``PolicyError`` (``make fuzz``)."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["dnp_guard.policy", "ruamel.yaml"]):
    from dnp_guard.errors import PolicyError
    from dnp_guard.policy import parse_policy


def one_input(raw: bytes) -> None:
    """Parse bytes from atheris as a policy; any exception but ``PolicyError`` ends the run as a bug."""
    with contextlib.suppress(PolicyError):
        parse_policy(raw, "fuzz.yaml")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
