from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dnp_guard import cli
from dnp_guard.generation import override
from dnp_guard.policy import load_policy
from dnp_guard.policy.force.approvals import approved

POLICY = "format: 1\nname: p\ncategories: [{id: star, negative: [star], threshold: 0.5}]\n"


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.run([*map(str, args)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def public(run, path):
    """Sign the policy with a new key, and return the public key."""
    key = path.with_name("key")
    code, out, _ = run("policy", "sign", path, "--key", key, "--new-key", "--serial", 3, "--expires", "2100-01-01")
    assert code == 0
    assert key.stat().st_mode & 0o077 == 0
    return out.splitlines()[0].removeprefix("public key: ")


def test_what_was_signed_verifies(run, path, public):
    code, out, _ = run("policy", "verify", path, "--key", public, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["ok"] is True
    assert document["manifest"]["serial"] == 3


def test_the_author_is_part_of_what_is_signed(run, path, public):
    key = path.with_name("key")
    run("policy", "sign", path, "--key", key, "--author", "B. Writer", "--expires", "2100-01-01")
    _, out, _ = run("policy", "verify", path, "--key", public, "--json")
    assert json.loads(out)["manifest"]["author"] == "B. Writer"


def test_what_was_altered_exits_1(run, path, public):
    path.write_text(POLICY.replace("0.5", "0.9"))
    code, out, err = run("policy", "verify", path, "--key", public, "--json")
    assert code == 1
    assert json.loads(out)["errors"][0]["code"] == "altered"
    assert "changed since it was signed: p.yaml" in err


def test_a_lower_serial_than_asked_for_exits_1(run, path, public):
    assert run("policy", "verify", path, "--key", public, "--lowest", 4)[0] == 1


def test_a_key_is_not_overwritten(run, path, public):
    again = run("policy", "sign", path, "--key", path.with_name("key"), "--new-key", "--expires", "2100-01-01")
    assert again[0] == 2
    assert "already exists" in again[2]


def test_a_signature_without_an_end_is_a_usage_error(run, path):
    assert run("policy", "sign", path, "--key", path.with_name("key"), "--new-key")[0] == 2


def test_an_override_is_written_for_every_guard_to_read(run, tmp_path):
    file = tmp_path / "override.json"
    code, out, _ = run(
        "override", "--on-failure", "open", "--for", "30m", "--actor", "A", "--reason", "R", "--file", file
    )
    assert code == 0
    assert "sensitive" in out
    active = override.in_force(file, datetime.now(UTC))
    assert active.on_failure == "open"
    assert active.actor == "A"
    assert active.reason == "R"


@pytest.mark.parametrize("change", [{"--for": "3d"}, {"--actor": " "}, {"--on-failure": "ajar"}])
def test_an_override_that_says_too_little_or_too_much_is_refused(run, tmp_path, change):
    options = {"--on-failure": "open", "--for": "30m", "--actor": "A", "--reason": "R", **change}
    file = tmp_path / "override.json"
    assert run("override", *[option for pair in options.items() for option in pair], "--file", file)[0] == 2
    assert not file.exists()


def test_diff_approves_exactly_what_it_has_shown(run, path):
    other = path.with_name("q.yaml")
    other.write_text(POLICY.replace("name: p", "name: q").replace("0.5", "0.9"))
    code, out, _ = run("policy", "diff", path, other, "--approve", "A. Person", "--reason", "Too many alarms.")
    assert code == 0
    assert "threshold 0.5 → 0.9: fewer images steered" in out
    assert approved(other, load_policy(other))


def test_an_approval_needs_a_reason(run, path):
    assert run("policy", "diff", path, path, "--approve", "A. Person")[0] == 2
