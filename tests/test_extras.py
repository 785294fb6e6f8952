from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dnp_guard import Guard, cli
from dnp_guard.errors import MissingExtra
from dnp_guard.extras import PACKAGES, absent, needs

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """Make the packages of all extras look missing, and change to an empty folder."""
    extras = {name for names in PACKAGES.values() for name in names}
    monkeypatch.setattr("dnp_guard.extras.find_spec", lambda name: None if name in extras else find_spec(name))
    monkeypatch.chdir(tmp_path)


def packages(extra):
    """Yield the import names of an extra's packages, including those of the extras that it contains."""
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "dnp-guard":
            yield from (name for held in requirement.extras for name in packages(held))
        else:
            yield requirement.name.replace("-", "_")


@pytest.mark.parametrize("extra", PACKAGES)
def test_an_extra_brings_what_is_asked_for(extra):
    assert set(PACKAGES[extra]) == set(packages(extra))


@pytest.mark.parametrize("extra", [name for name in EXTRAS if name not in {"browser", "dev", "docs", "fuzz"}])
def test_the_page_on_installing_says_what_an_extra_brings(extra):
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert f"| `{extra}` |" in page


def test_everything_is_in_the_extra_all():
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.extras == set(EXTRAS) - {"all", "browser", "dev", "docs", "fuzz"}


def test_a_missing_package_is_named_with_the_line_to_type(plain):
    with pytest.raises(MissingExtra) as caught:
        needs("redis", "this store")
    assert caught.value.message == "this store needs the extra 'redis'; not installed: redis"
    assert caught.value.hint == "pip install 'dnp-guard[redis]'"


def test_an_installed_package_is_not_refused():
    needs("diffusers", "this test")
    assert absent("diffusers") == ()


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("demo", "lab"),
        ("generate --prompt lake", "diffusers"),
        ("evaluate", "lab"),
        ("bench", "lab"),
        ("distill", "lab"),
        ("preview fit --model glyphs", "diffusers"),
        ("vlm calibrate --vlm glyphs --held-out 50", "lab"),
        ("audit replay request --prompt-file prompt.txt", "lab"),
        ("policy test glyphs", "local"),
        ("serve --policy glyphs --vlm glyphs", "local"),
        ("serve --policy glyphs --vlm transformers:owner/model", "local"),
    ],
)
def test_a_command_whose_extra_is_missing_says_the_line_to_type_and_leaves_nothing(
    plain, tmp_path, capsys, line, extra
):
    assert cli.run(line.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1:] == [f"  pip install 'dnp-guard[{extra}]'"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", ["glyphs", "transformers:owner/model", "transformers-text:owner/model"])
def test_a_backend_in_process_is_refused_where_its_extra_is_missing(plain, spec):
    with pytest.raises(MissingExtra, match=r"pip install 'dnp-guard\[local\]'"):
        Guard("glyphs", vlm=spec)


def test_a_scripted_backend_needs_no_extra(plain, tmp_path):
    script = tmp_path / "looks.json"
    script.write_text("[{}]")
    Guard("glyphs", vlm=f"scripted:{script}").close()
