"""Tiny pipelines by the configurations of diffusers' own tests (Apache-2.0), with weights and tokenizers of ours.

``of_diffusers.json`` holds, for each class, the configurations of its components and what it is called with.
"""

import inspect
import json
from functools import cache
from importlib import import_module
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from tests.hosts.tiny import parts

FILE = Path(__file__).with_suffix(".json")
PROMPTS = ["a red circle", "a blue square", "a green cross"]


@cache
def specs():
    """The configurations, by class."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def components(name):
    """The components of a class, with weights drawn at random."""
    torch.manual_seed(0)
    return {part: component(spec) for part, spec in specs()[name]["components"].items()}


def component(spec):  # noqa: PLR0911 (one for each kind)
    if isinstance(spec, list):
        return [component(each) for each in spec]
    if not isinstance(spec, dict):
        return spec
    if "tokenizer" in spec:
        return tokenizer(spec["tokenizer"])
    if "diffusers" in spec:
        made = getattr(diffusers, spec["diffusers"]).from_config(spec["config"])
        return parts.without_zeros(made.eval()) if isinstance(made, torch.nn.Module) else made
    if "transformers" in spec:
        config = getattr(transformers, spec["config_class"]).from_dict(dict(spec["config"]))
        return parts.listening(getattr(transformers, spec["transformers"])(config).eval(), 4)
    if "SafetyChecker" in spec["other"]:
        return Lenient()
    return other(spec["other"])


def other(kind):
    """A component that is no model, by the name of its class."""
    module, _, name = kind.rpartition(".")
    if "CLIPImageProcessor" in name:
        return transformers.CLIPImageProcessor(crop_size=32, size=32)
    if name in {"ByT5Tokenizer", "IFWatermarker", "SiglipImageProcessorPil", "DPTImageProcessorPil"}:
        return getattr(import_module(module), name)()
    raise NotImplementedError(f"no tiny {kind}")


def tokenizer(kind):
    if kind.startswith("CLIPTokenizer"):
        return parts.clip_tokenizer()
    if kind.startswith(("CLIPImageProcessor", "CLIPFeatureExtractor")):
        return transformers.CLIPImageProcessor(crop_size=32, size=32)
    if "Tokenizer" in kind:
        return parts.words(256)
    raise NotImplementedError(f"no tiny {kind}")


class Lenient(torch.nn.Module):
    """A safety checker that lets everything pass."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, video):
        return video


def inputs(name, kind, images):
    """What a class is called with for so many images from fixed seeds."""
    given = {key: value(each) for key, each in specs()[name].get("inputs", {}).items()}
    accepted = inspect.signature(kind.__call__).parameters
    given["output_type"] = "np"
    generators = [torch.Generator().manual_seed(seed) for seed in range(images)]
    given["generator"] = generators if images > 1 else generators[0]
    if "prompt" in given:
        given["prompt"] = PROMPTS[:images] if images > 1 else "a blue square"
        if given.get("negative_prompt") is not None:
            given["negative_prompt"] = [""] * images if images > 1 else ""
    given["num_inference_steps"] = 4
    return {key: each for key, each in given.items() if key in accepted}


def value(spec):  # noqa: PLR0911 (one for each kind)
    """What stands for a picture or a tensor in the file, and everything else as it is."""
    if isinstance(spec, list):
        return [value(each) for each in spec]
    if not isinstance(spec, dict):
        return spec
    drawing = torch.Generator().manual_seed(0)
    if "picture" in spec:
        width, height = spec["picture"]
        pixels = torch.rand(height, width, 3, generator=drawing)
        return Image.fromarray((255 * pixels).to(torch.uint8).numpy())
    if "tensor" in spec:
        if spec["like"] == "int":
            return torch.ones(spec["tensor"], dtype=torch.long)
        return torch.rand(spec["tensor"], generator=drawing)
    if "array" in spec:
        return torch.rand(spec["array"], generator=drawing).numpy().astype(np.dtype(spec["dtype"]))
    return {key: value(each) for key, each in spec.get("dict", {}).items()}
