"""Read random bytes of atheris, guided by coverage: a policy or a ``PolicyError`` must result (``make fuzz``)."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["dnp_guard.policy", "ruamel.yaml"]):
    from dnp_guard.errors import PolicyError
    from dnp_guard.policy import parse_policy


def one_input(raw: bytes) -> None:
    """Read the bytes of atheris; any other exception is a finding."""
    with contextlib.suppress(PolicyError):
        parse_policy(raw, "fuzz.yaml")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
