"""The deployment files (compose, Kubernetes) are valid by their schemas, and their commands start the service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dnp_guard.cli import run
from tests.server.processes import serving

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
COMPOSE = INTEGRATIONS / "compose" / "compose.yaml"
SERVICES = YAML(typ="safe").load(COMPOSE.read_text())["services"]
MANIFESTS = {
    f"{file.stem}/{manifest['kind']}/{manifest['metadata']['name']}": manifest
    for file in (INTEGRATIONS / "kubernetes").glob("*.yaml")
    if file.name != "kustomization.yaml"
    for manifest in YAML(typ="safe").load_all(file.read_text())
}
PODS = {
    name: manifest["spec"]["template"]["spec"]
    for name, manifest in MANIFESTS.items()
    if "template" in manifest.get("spec", {})
}
GUARD = PODS["guard/StatefulSet/guard"]["containers"][0]


def test_the_compose_file_is_valid_by_its_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid_by_the_schema_of_kubernetes(name):
    import kubernetes_validate

    kubernetes_validate.validate(MANIFESTS[name], "1.37", strict=True)


def test_the_kustomization_names_every_manifest():
    folder = INTEGRATIONS / "kubernetes"
    named = YAML(typ="safe").load((folder / "kustomization.yaml").read_text())["resources"]
    assert {*named, "kustomization.yaml"} == {file.name for file in folder.glob("*.yaml")}


@pytest.mark.parametrize("name", [name for name in PODS if not name.startswith("vlm")])
def test_a_container_of_ours_can_do_little(name):
    (container,) = PODS[name]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert PODS[name]["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize("name", PODS)
def test_a_container_is_probed_and_limited(name):
    (container,) = PODS[name]["containers"]
    assert {"livenessProbe", "readinessProbe"} <= container.keys()
    assert "memory" in container["resources"]["limits"]


@pytest.fixture
def files(tmp_path, capsys):
    """Write the secrets that both deployments mount, and a script of answers, into a folder; return the folder."""
    if shutil.which("openssl") is None:
        pytest.skip("makes certificates with openssl")
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=guard"
    subprocess.run(
        ["openssl", *make.split(), "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt"],  # noqa: S607
        check=True,
        capture_output=True,
    )
    assert run(["token", "add", str(tmp_path / "tokens.json"), "--name", "Ann Lee", "--role", "moderator"]) == 0
    assert run(["receipt", "key", str(tmp_path / "receipts.key")]) == 0
    (tmp_path / "looks.json").write_text(json.dumps([{}]))
    capsys.readouterr()
    return tmp_path


def here(arguments, files):
    """Replace paths and model in a deployment's arguments by files on this machine and scripted answers."""
    (command, *options) = arguments
    assert command == "serve"
    options_here = [re.sub(r"=/(run|var/lib)/dnp-guard/(\w+/)?", f"={files}/", option) for option in options]
    options_here = [re.sub(r"^--vlm=.*", f"--vlm=scripted:{files / 'looks.json'}", option) for option in options_here]
    return [re.sub(r"^--policy=.*", "--policy=default", option) for option in options_here]


MOUNTED = [volume["secret"] for volume in PODS["guard/StatefulSet/guard"]["volumes"] if "secret" in volume]
MODES = {int(str(secret["defaultMode"]), 8) for secret in MOUNTED}
"""The modes of files that Kubernetes mounts; it reads 0440 as octal, YAML 1.2 does not."""


@pytest.mark.parametrize(
    ("arguments", "modes"),
    [(SERVICES["guard"]["command"], {0o600}), (GUARD["args"], MODES)],
    ids=["compose", "kubernetes"],
)
def test_the_service_starts_as_it_is_deployed_and_answers_its_probe(arguments, modes, files, monkeypatch):
    (mode,) = modes
    for name in ("tokens.json", "receipts.key", "tls.crt", "tls.key"):
        (files / name).chmod(mode)
    monkeypatch.setenv("DNP_GUARD_STORE", f"sqlite:{files / 'sessions.sqlite'}")
    with serving(*here(arguments, files), verify=False) as running:
        *_, probe = SERVICES["guard"]["healthcheck"]["test"]
        probe = probe.replace("127.0.0.1:8777", f"127.0.0.1:{running.url.rpartition(':')[2]}")
        assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
    assert (files / "sessions.sqlite").exists()
