from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", autouse=True)
def any_mass() -> Iterator[None]:
    """Accept answers of models with random weights, for which yes and no together are improbable next words."""
    from dnp_guard.vlm.local.backend import TransformersBackend

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersBackend, "least_mass", 0.0)
        yield


@pytest.fixture(scope="session")
def llava() -> tuple[Any, Any]:
    """Return a tiny LLaVA and its processor, with random weights large enough that its answers differ."""
    from dnp_guard.lab.world import models

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        processor = models.vlm_processor()
        model = models.vlm(processor)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return model.eval(), processor


@pytest.fixture(scope="session")
def llava_folder(llava: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the tiny LLaVA and its processor in a folder, and return the folder."""
    folder = tmp_path_factory.mktemp("llava")
    for part in llava:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava_next(llava: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return a tiny LLaVA-NeXT and its processor, which splits an image into more or fewer tiles by its shape."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    model, processor = llava
    tiles = [[32, 64], [64, 32], [64, 64]]
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=tiles
    )
    config = LlavaNextConfig(
        vision_config=model.config.vision_config,
        text_config=model.config.text_config,
        image_token_index=model.config.image_token_id,
        vision_feature_layer=-1,
        image_grid_pinpoints=tiles,
        image_seq_length=16,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = LlavaNextForConditionalGeneration(config)
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return network.eval(), LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=processor.tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=processor.chat_template,
    )


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run a real ``transformers serve`` with the embedded model; yield the model's name and the base URL."""
    from dnp_guard import glyphs

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve"]
    options = [str(glyphs.VLM), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    cache = tmp_path_factory.mktemp("hub")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    log = cache / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, *options], env=environment, cwd=cache, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_for(port, server, log)
        yield str(glyphs.VLM), f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    def listens() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(listens, 180)
