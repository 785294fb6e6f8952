"""Build small policies for tests, and replace the current time that policies see."""

from contextlib import contextmanager
from datetime import datetime

import pytest

from dnp_guard.policy import Policy


@contextmanager
def at(moment):
    """Make a moment the current time for all policies, inside a ``with`` block."""

    class Present(datetime):
        @classmethod
        def now(cls, tz=None):
            return moment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dnp_guard.policy.force.rollout.datetime", Present)
        yield


def policy(**changes):
    """Return a policy with the categories star and bolt, four looks per run and a final look, after some changes.

    Args:
        changes: values for keys of the policy; a mapping is merged with the value that it changes.
    """
    base = {
        "format": 1,
        "name": "test",
        "queries": {"steps": [0.2, 0.4, 0.6, 0.8], "final": True},
        "question": {"template": "is there ${term} in this image?"},
        "guidance": {"mode": "separate", "scale": 6, "strength": "constant", "hold": 0},
        "categories": [star(), bolt()],
        "audit": {"prompt": "none"},
    }
    for key, value in changes.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return Policy.model_validate(base)


def written(folder, **changes):
    """Write a policy from :func:`policy` to a file in a folder, and return the file's path."""
    file = folder / "policy.yaml"
    file.write_text(policy(**changes).model_dump_json(exclude_defaults=True))
    return file


def star(**changes):
    return {"id": "star", "look_for": ["a star"], "negative": ["star"], "severity": "high", **changes}


def bolt(**changes):
    return {"id": "bolt", "look_for": ["a bolt", "a storm"], "negative": ["bolt", "${found}"], **changes}
