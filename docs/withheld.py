"""Make the pictures of a withheld image that the pages show: ``python -m docs.withheld``.

One from ``dnp-guard generate`` on the embedded models, and one that ComfyUI's stand-in of the tests saves. The looks
are scripted to find a star in everything, so that an image is withheld for certain.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from dnp_guard.cli import run
from dnp_guard.glyphs.loading import load_pipeline
from tests.hosts.comfyui_host import install
from tests.integrations.test_comfyui import with_nodes, workflow
from tests.policies import policy, star

STATIC = Path(__file__).parent / "_static"
_SIDE, _LARGE = 256, 128
_WORDS = "This image was withheld."


def main() -> None:
    """Write both pictures."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        looks, file = folder / "looks.json", folder / "policy.yaml"
        looks.write_text(json.dumps({"a star": 0.9}), encoding="utf-8")
        made = policy(categories=[star()], withheld={"text": _WORDS})
        file.write_text(made.model_dump_json(exclude_defaults=True), encoding="utf-8")
        arguments = ["--policy", str(file), "--vlm", f"scripted:{looks}", "--out", name, "--seed", "5", "--steps", "8"]
        run(["generate", "-p", "a wish at night", *arguments])
        with Image.open(folder / "5.png") as picture:
            _saved(picture, "generate")
        patch.setenv("DNP_GUARD_POLICY", str(file))
        patch.setenv("DNP_GUARD_VLM", f"scripted:{looks}")
        comfy = install(patch, load_pipeline())
        nodes = with_nodes(workflow(batch=1, steps=4), vlm=f"scripted:{looks}")
        nodes["4"]["inputs"] |= {"width": _LARGE, "height": _LARGE}  # with room for words
        status, answer = comfy.server.post(nodes)
        if status != 200:  # noqa: PLR2004 (of HTTP)
            raise RuntimeError(answer)
        (image,) = comfy.saved[-1]
        _saved(Image.fromarray((image.numpy() * 255).round().astype("uint8")), "comfyui")


def _saved(picture: Image.Image, name: str) -> None:
    picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST).save(STATIC / f"withheld-{name}.png")


if __name__ == "__main__":
    main()
