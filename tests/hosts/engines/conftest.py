import json
import os

import pytest

from tests.policies import policy  # noqa: F401 (tests name it)

SETTINGS = {"policy": "glyphs", "on_failure": "closed"}


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Write the settings of an engine's guard to a file that the environment names."""
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
