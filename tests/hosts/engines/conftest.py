import json
import os

import pytest
import torch

from tests.hosts.tiny import tiny
from tests.policies import policy, star

ATTENTION = {"mode": "attention", "scale": None, "attention": {"phi": 10, "tau": 2, "alpha": 0.5}}
SETTINGS = {"policy": "glyphs", "on_failure": "closed"}


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Return a function that writes the guard's settings for a serving engine, and names the file in the environment.

    The function returns the folder in which the guard keeps its state.
    """
    for name in list(os.environ):
        if name.startswith("DNP_GUARD_ENGINE_"):
            monkeypatch.delenv(name)

    def write(**settings):
        script = tmp_path / "script.json"
        script.write_text(json.dumps(settings.pop("looks", [{}])))
        file = tmp_path / "engine.yaml"
        values = {**SETTINGS, "vlm": f"scripted:{script}", "state": str(tmp_path / "state"), **settings}
        file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
        monkeypatch.setenv("DNP_GUARD_ENGINE_CONFIG", str(file))
        return tmp_path / "state"

    return write


@pytest.fixture
def stricter(tmp_path):
    """Return a function that writes a policy against stars, by default with the action block, and returns its path."""

    def write(name, action="block", still_present="monitor", **more):
        file = tmp_path / f"{name}.yaml"
        made = policy(name=name, categories=[star(action=action, still_present=still_present, **more)])
        file.write_text(json.dumps(made.resolved()))
        return str(file)

    return write


@pytest.fixture
def omni_installed(tmp_path, monkeypatch):
    """Make vLLM-Omni look installed: put its package metadata, with a version, on the import path."""
    written = tmp_path / "installed" / "vllm_omni-0.30.0.dist-info" / "METADATA"
    written.parent.mkdir(parents=True)
    written.write_text("Metadata-Version: 2.1\nName: vllm-omni\nVersion: 0.30.0\n")
    monkeypatch.syspath_prepend(written.parents[1])


@pytest.fixture
def pipe():
    shared = tiny("StableDiffusionPipeline")
    yield shared
    shared.callback_on_step_end = None


def arguments():
    """Return arguments for calling a tiny pipeline, with a fixed seed, so that it always draws the same picture."""
    return {
        "prompt": "a lake",
        "num_inference_steps": 4,
        "height": 32,
        "width": 32,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "np",
    }
