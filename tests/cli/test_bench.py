import json

import pytest

from dnp_guard.cli import run

pytestmark = pytest.mark.models


def test_the_file_names_the_machine_and_has_a_row_for_every_kind(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert run(["bench", "--batches", "1", "--steps", "4", "--rounds", "1", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["machine"]["device"] == "cpu"
    assert [row["kind"] for row in document["rows"]] == [
        "unguarded", "unqueried", "guarded-clean", "guarded-steering", "static-separate", "vl-dnp",
    ]  # fmt: skip
    assert "guarded-steering" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batches", "1,x"], "--batches"),
        (["--batches", "0"], "--batches"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--random-weights", "sd3"], "tiny-sd15"),
        (["--model", "nowhere"], "--vlm"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_words(tmp_path, capsys, arguments, said):
    assert run(["bench", "--out", str(tmp_path / "bench.json"), *arguments]) == 2
    assert said in capsys.readouterr().err
