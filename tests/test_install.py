"""The wheel alone works in a fresh virtual environment, as after a plain ``pip install dnp-guard`` without torch.

``make lowest`` runs the same with the oldest versions that the ranges of the dependencies allow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.server.processes import serving
from tests.vlm import fault_server

ROOT = Path(__file__).parents[1]

GENERATION = """
import sys

from PIL import Image

from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service

picture = Image.new("RGB", (64, 64), "teal")
with Service(sys.argv[1]) as service, service.open(["a lake"], images=1, steps=10, host=Host(name="test")) as session:
    for step in range(10):
        if session.due(step):
            session.query(step, [picture])
    print(*(verdict.action for verdict in session.final([picture])))
"""


class Plain:
    """A virtual environment in which the wheel and its dependencies are installed."""

    def __init__(self, folder):
        self.bin = folder / "bin"

    def python(self, *arguments):
        return subprocess.run([self.bin / "python", *arguments], capture_output=True, text=True, check=False)

    def pip(self, *arguments):
        return self.python("-m", "pip", "--disable-pip-version-check", "--retries", "1", *map(str, arguments))

    def dnp_guard(self, *arguments):
        return subprocess.run([self.bin / "dnp-guard", *arguments], capture_output=True, text=True, check=False)


def lowest():
    """Return pip constraints that pin every dependency to the oldest version of its range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = map(Requirement, project["dependencies"])
    return "".join(f"{requirement.name}{str(requirement.specifier).replace('>=', '==')}\n" for requirement in needed)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    constraints = ROOT / "constraints.txt"
    if os.environ.get("DNP_GUARD_LOWEST"):
        constraints = folder / "lowest.txt"
        constraints.write_text(lowest(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)  # runs the wheel, not this checkout
        patch.chdir(folder)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        environment = Plain(folder / "venv")
        built = environment.pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT)
        if "No matching distribution found for hatchling" in built.stderr:
            pytest.skip("pip reaches no package index here")
        assert built.returncode == 0, built.stderr
        wheels = folder.glob("*.whl")
        # Compiling unused modules would take half of the time.
        installed = environment.pip("install", "--no-compile", "-c", constraints, *wheels)
        assert installed.returncode == 0, installed.stderr
        yield environment


@pytest.fixture(scope="module")
def generated(plain, tmp_path_factory):
    """Run the installed service with a model server, and guard a generation over HTTP.

    Returns:
        The finished process of the host, and the audit log.
    """
    log = tmp_path_factory.mktemp("served") / "audit.jsonl"
    with fault_server.running() as model:
        options = ("--policy", "default", "--vlm", f"openai:m@{model.url}", "--audit", log)
        with serving(*options, command=(plain.bin / "dnp-guard",)) as service:
            host = plain.python("-c", GENERATION, service.url)
    return host, log


def test_it_holds_nothing_of_the_extras(plain):
    names = {package["name"].lower() for package in json.loads(plain.pip("list", "--format", "json").stdout)}
    assert "dnp-guard" in names
    assert names.isdisjoint({"accelerate", "diffusers", "safetensors", "tokenizers", "torch", "transformers"})


def test_it_checks_a_policy(plain):
    assert plain.dnp_guard("policy", "check", "default").returncode == 0


def test_it_guards_a_generation_over_http_with_a_model_elsewhere(generated):
    host, log = generated
    assert host.stdout == "pass\n"
    assert host.stderr == ""
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[0] == "policy.loaded"
    assert {"request.started", "query", "request.finished"} <= set(events)


def test_it_verifies_a_log(plain, generated):
    done = plain.dnp_guard("audit", "verify", str(generated[1]))
    assert done.returncode == 0
    assert done.stderr == ""


def test_doctor_finds_nothing_that_would_fail(plain):
    done = plain.dnp_guard("doctor", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["errors"] == []


def test_a_command_whose_extra_is_missing_says_the_line_to_type(plain):
    done = plain.dnp_guard("demo")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == ["  pip install 'dnp-guard[lab]'"]
