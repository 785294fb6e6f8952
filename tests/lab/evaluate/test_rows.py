import json

import pytest

from dnp_guard.lab.evaluate.rows import Row, Timing
from tests.lab.evaluate.measured import row, timing


def test_a_row_is_the_same_after_json():
    written = row(3, seen=("star", "bolt"), degraded=("vlm_error",), features=(0.5, 0.25), kept=None, clip=0.3)
    assert Row.from_json(json.loads(json.dumps(written.to_json()))) == written


def test_a_timing_is_the_same_after_json():
    assert Timing.from_json(json.loads(json.dumps(timing().to_json()))) == timing()


def test_a_row_of_another_version_is_refused():
    with pytest.raises(TypeError, match="unknown 'colour'"):
        Row.from_json({**row().to_json(), "colour": "red"})
