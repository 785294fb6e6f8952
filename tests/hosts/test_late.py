import subprocess
import sys

import pytest

LATE = """
import sys
from importlib.util import find_spec
from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend

guard = Guard("glyphs", vlm=ScriptedBackend({}))
assert "diffusers" not in sys.modules and "torch" not in sys.modules
assert find_spec("diffusers.pipelines.pipeline_utils")
from diffusers import DiffusionPipeline
assert "callback_on_step_end" in DiffusionPipeline.__dict__
from diffusers import ModularPipeline
from dnp_guard import CannotSteer
try:
    object.__new__(ModularPipeline).callback_on_step_end = guard
except CannotSteer as error:
    assert "no scheduler" in error.reason
else:
    raise AssertionError
assert not any(type(finder).__module__.startswith("dnp_guard") for finder in sys.meta_path)
"""


@pytest.mark.models
def test_a_guard_made_before_diffusers_is_imported_puts_its_attribute_there_when_it_is():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
