from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dnp_guard import glyphs
from dnp_guard.errors import VlmUnavailable
from dnp_guard.plugins import Plugins
from dnp_guard.vlm import ScriptedBackend, plugin
from dnp_guard.vlm.local import forms

if TYPE_CHECKING:
    from pathlib import Path


def build(spec: str) -> object:
    return Plugins([plugin], [], lambda *_: None).hook.dnp_guard_vlm(spec=spec)


def test_a_script_is_built_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("- {star: 0.5}")
    assert isinstance(build(f"scripted:{tmp_path}/s.yaml"), ScriptedBackend)


def test_a_folder_is_built_with_transformers(llava_folder: Path) -> None:
    backend = build(f"transformers:{llava_folder}")
    assert getattr(backend, "name", None) == str(llava_folder)


def test_the_embedded_model_is_named_glyphs(llava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "VLM", llava_folder)
    assert getattr(build("glyphs"), "name", None) == "glyphs"


@pytest.mark.parametrize("spec", ["other:thing", "", "glyphs:x", "claude:m@http://localhost"])
def test_another_kind_is_left_to_other_plugins(spec: str) -> None:
    assert build(spec) is None


@pytest.mark.parametrize("spec", ["transformers:", "transformers", "scripted:"])
def test_a_kind_without_a_model_is_unavailable(spec: str) -> None:
    with pytest.raises(VlmUnavailable, match="names no model"):
        build(spec)


@pytest.mark.parametrize(("spec", "meant"), [("transformer:a/b", "transformers:ID_OR_FOLDER"), ("Glyphs", "glyphs")])
def test_a_misspelt_kind_is_answered_with_the_nearest(spec: str, meant: str) -> None:
    with pytest.raises(VlmUnavailable) as refused:
        plugin.build(spec)
    assert refused.value.hint == f"Did you mean {meant}?"


def test_every_kind_that_messages_list_is_of_this_plugin() -> None:
    kinds = {kind.partition(":")[0] for kind in plugin.KINDS}
    assert kinds == {
        *["glyphs", "transformers", "transformers-text", "openai", "systemone", "decisions", "detector", "scripted"],
        *forms.BY_KIND,
    }


def test_importing_the_room_and_a_script_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("- {star: 0.5}")
    code = (
        "import sys, dnp_guard.vlm, dnp_guard.vlm.plugin as p;"
        f"p.dnp_guard_vlm('scripted:{tmp_path}/s.yaml');"
        "sys.exit(sorted({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)).__repr__()"
        " if {'torch', 'transformers', 'diffusers'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
