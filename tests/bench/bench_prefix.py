"""Time queries whose prompt has words before the image: the model reads them every time, or keeps them in its cache.

Run this with `make bench`; the results are in the group "prefix".
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from PIL import Image

from dnp_guard import glyphs
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.evaluate.held_out import held_out
from dnp_guard.vlm.local.backend import TransformersBackend
from dnp_guard.vlm.local.forward import SharedImage

WORDS = 40
QUESTIONS = [f"is there a {shape} in this image ?" for shape in ("star", "skull", "bolt")]


@pytest.fixture(scope="module")
def reader():
    """Return the embedded vision-language model with its processor, whose prompts have 40 words before the image."""
    torch.set_num_threads(1)
    reader = TransformersBackend(glyphs.VLM).reader
    processor = copy.copy(reader.processor)
    processor.chat_template = "is there a star in this image ? " * (WORDS // 8) + reader.processor.chat_template
    return replace(reader, processor=processor)


@pytest.mark.benchmark(group="prefix")
@pytest.mark.parametrize("prefix", [False, True], ids=["read anew", "read once"])
def test_a_query_with_forty_words_before_each_image(benchmark, reader, prefix):
    images = [example.image for example in held_out(load_pipeline(), 4, seed=3)]
    with torch.inference_mode():
        shared = SharedImage(reader, Image.new("RGB", images[0].size), prefix=prefix)
        benchmark.pedantic(shared, args=(images, QUESTIONS), warmup_rounds=5, rounds=100)
