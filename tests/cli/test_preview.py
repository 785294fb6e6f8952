from __future__ import annotations

import json

import pytest

from dnp_guard.cli import run
from dnp_guard.preview import maps

pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(maps.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_fit_keeps_the_map_and_says_how_far_off_it_is(cache, capsys):
    assert run(["preview", "fit", "--model", "glyphs", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kept"]
    assert document["file"].startswith(str(cache))
    assert 0 < document["rmse255"] < document["rmse255_of_one_colour"]


def test_fit_says_the_same_in_words(capsys):
    assert run(["preview", "fit", "--model", "glyphs"]) == 0
    assert "the root mean square error against" in capsys.readouterr().out


def test_a_folder_without_an_autoencoder_is_named(tmp_path, capsys):
    assert run(["preview", "fit", "--model", str(tmp_path)]) == 2
    assert "no autoencoder could be loaded" in capsys.readouterr().err
