from __future__ import annotations

import json
import shutil
import ssl
import subprocess

import httpx2
import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service, ServiceError
from dnp_guard.server import run
from dnp_guard.server.settings import Settings
from tests.server.processes import serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    (folder / "looks.json").write_text(json.dumps([{"a star": 0.0}]))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def options(files):
    policy = ("--policy", "glyphs", "--vlm", f"scripted:{files / 'looks.json'}")
    return (*policy, "--tls-cert", files / "cert.pem", "--tls-key", files / "key.pem")


def test_the_service_speaks_tls(files):
    with serving(*options(files), verify=ssl.create_default_context(cafile=files / "cert.pem")) as running:
        assert running.url.startswith("https://")
        with Service(running.url, verify=str(files / "cert.pem")) as client:
            assert client.open(images=1, steps=25, host=Host(name="tests")).opened.policy == "glyphs"
        with Service(running.url) as stranger, pytest.raises(ServiceError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.open(images=1, steps=25, host=Host(name="tests"))


def test_clients_may_have_to_show_a_certificate(files):
    known = ssl.create_default_context(cafile=files / "cert.pem")
    known.load_cert_chain(files / "cert.pem", files / "key.pem")
    with serving(*options(files), "--tls-clients", files / "cert.pem", verify=known) as running:
        unknown = ssl.create_default_context(cafile=files / "cert.pem")
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"{running.url}/healthz", trust_env=False, verify=unknown)


def test_a_key_that_others_may_read_is_refused(files, tmp_path):
    key = tmp_path / "key.pem"
    shutil.copy(files / "key.pem", key)
    key.chmod(0o644)
    with pytest.raises(DnpGuardError, match="may read the key") as raised:
        run.check(run.Listener(certificate=files / "cert.pem", key=key), Settings(policy="", vlm=""), plain_http=False)
    assert raised.value.hint == f"chmod 600 {key}"
