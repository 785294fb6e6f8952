"""The checks of a running ComfyUI (``host_check``) pass or fail as they should on the stand-in for it."""

import json
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.server.settings import Settings
from tests.hosts import comfyui_host, host_check, host_check_comfyui
from tests.hosts.scripted_service import POLICY, Records
from tests.integrations.conftest import listening

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline()


@pytest.fixture
def service(monkeypatch, tmp_path):
    """Return an address at which the checks will start their guard service, in this process to save time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    served = []

    @contextmanager
    def serving(address, looks, **changes):
        folder = tmp_path / f"service-{len(served)}"
        served.append(folder)
        folder.mkdir()
        (folder / "policy.yaml").write_text(json.dumps({**POLICY, **changes}), encoding="utf-8")
        (folder / "looks.json").write_text(json.dumps(looks), encoding="utf-8")
        vlm, audit = f"scripted:{folder / 'looks.json'}", str(folder / "audit.jsonl")
        settings = Settings(policy=str(folder / "policy.yaml"), vlm=vlm, audit=(audit,))
        with listening(settings, urlsplit(address).port):
            yield Records(folder / "audit.jsonl")

    monkeypatch.setattr(host_check_comfyui, "serving", serving)
    monkeypatch.setattr(host_check_comfyui, "POLL_S", 0.0)
    monkeypatch.setattr(comfyui_host, "SAMPLER_NAMES", ["euler", "heun"])
    monkeypatch.setenv("DNP_GUARD_URL", url)
    return url


def run(comfy, service, capsys):
    with comfyui_host.Api(comfy) as api:
        code = host_check.main(["--comfyui", api.url, "--service", service, "--size", "32", "--steps", "8"])
    return code, capsys.readouterr().out


def test_a_host_with_the_nodes_passes_every_check(service, pipe, monkeypatch, capsys):
    code, out = run(comfyui_host.install(monkeypatch, pipe), service, capsys)
    assert code == 0, out
    assert "FAIL" not in out
    assert out.count("observed equals plain") == 7
    assert out.count("is steered") == 7
    assert "nothing leaks into later plain runs" in out


def test_a_host_that_guards_every_workflow_passes_what_can_be_checked(service, pipe, monkeypatch, capsys):
    monkeypatch.setenv("DNP_GUARD_ENFORCE", "server")
    code, out = run(comfyui_host.install(monkeypatch, pipe), service, capsys)
    assert code == 0, out
    assert out.count("skip") == 8


def test_a_host_whose_guidance_is_not_hooked_fails(service, pipe, monkeypatch, capsys):
    hooked = "set_model_sampler_post_cfg_function"
    monkeypatch.setattr(comfyui_host.ModelPatcher, hooked, lambda *_: None)
    code, out = run(comfyui_host.install(monkeypatch, pipe), service, capsys)
    assert code == 1
    assert "FAIL  separate: differs" in out
    assert "FAIL  sampler euler: is steered" in out


def test_a_host_without_the_nodes_fails(service, pipe, monkeypatch, capsys):
    comfy = comfyui_host.install(monkeypatch, pipe)
    del comfy.server.classes["DNPGuard"]
    code, out = run(comfy, service, capsys)
    assert code == 1
    assert out == "FAIL  the nodes are installed: DNPGuard\n"
