"""Build tiny pipelines from the configurations of diffusers' own tests (Apache-2.0), with our weights and tokenizers.

``of_diffusers.json`` holds, per pipeline class, the configurations of its components and the arguments of its call. A
``spec`` is one entry of this file.
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
STEPS = 4
PROMPTS = ["a red circle", "a blue square", "a green cross"]


@cache
def specs():
    """Return the contents of ``of_diffusers.json`` by the name of the pipeline class."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def components(name):
    """Build the components of a pipeline class, with random weights."""
    torch.manual_seed(0)
    specs_of = specs()[name]["components"]
    models = {part: component(spec, part) for part, spec in specs_of.items() if not is_reader(spec)}
    configs = [model.config for model in models.values() if isinstance(model, transformers.PreTrainedModel)]
    reads = next((config for config in configs if hasattr(config, "vision_config")), None)
    seen = [getattr(config, "vision_config", config) for config in configs]
    side = next((config.image_size for config in seen if hasattr(config, "image_size")), 32)
    return {
        part: models[part] if part in models else reader(spec["tokenizer"], reads, side)
        for part, spec in specs_of.items()
    }


def is_reader(spec):
    """Return whether a component is a tokenizer or processor, which reads words or pictures and has no weights."""
    return isinstance(spec, dict) and "tokenizer" in spec


def component(spec, name=""):
    if isinstance(spec, list):
        return [component(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if "diffusers" in spec:
        config = spec["config"]
        if config.get("use_flow_sigmas"):
            config = {**config, "prediction_type": "flow_prediction"}  # as every model with flow sigmas predicts
        made = named(diffusers, spec, "diffusers").from_config(config)
        return parts.without_zeros(made.eval()) if isinstance(made, torch.nn.Module) else made
    if "transformers" in spec:
        kind = named(transformers, spec, "transformers")
        config = getattr(transformers, spec["config_class"], kind.config_class).from_dict(dict(spec["config"]))
        made = kind(config).eval()
        return parts.drawn(made) if spec.get("module") else parts.listening(made, 4)
    if "SafetyChecker" in spec["other"] or name == "safety_checker":
        return Lenient()
    return other(spec["other"])


def named(library, spec, key):
    """Return the class that a spec names, from the module that the spec names or else from the library itself."""
    return getattr(import_module(spec["module"]) if spec.get("module") else library, spec[key])


def other(kind):
    """Build a component without configuration, by the full name of its class."""
    module, _, name = kind.rpartition(".")
    if "CLIPImageProcessor" in name:
        return transformers.CLIPImageProcessor(crop_size=32, size=32)
    if name.endswith(("Mock", "NoneType")):
        raise NotImplementedError(f"no tiny {kind}")
    return getattr(import_module(module), name)()


def reader(kind, config=None, side=32):
    """Build a tokenizer or a processor, by the name of its class.

    Args:
        kind: the name.
        config: configuration of the pipeline's vision-language model, if it has one.
        side: width and height of the pictures that a processor returns, in pixels.
    """
    kind = kind.removesuffix("Pil")
    if kind.startswith("CLIPTokenizer"):
        return parts.clip_tokenizer()
    if kind == "ChatGLMTokenizer":
        return parts.words(256, kind=parts.Positioned)
    if kind.endswith(("ImageProcessor", "FeatureExtractor")) and not kind.startswith("Auto"):
        return transformers.CLIPImageProcessor(crop_size=side, size=side)
    if config is not None and hasattr(config.vision_config, "depth"):
        return parts.seeing_words(config) if kind.endswith("Processor") else parts.seeing_words(config).tokenizer
    if "Tokenizer" in kind or kind.endswith("Processor"):
        return parts.words(256)
    raise NotImplementedError(f"no tiny {kind}")


class Lenient(torch.nn.Module):
    """A safety checker that passes every prompt and video."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, video):
        return video


def inputs(name, kind, images):
    """Return arguments for calling a pipeline class for a number of images from fixed seeds.

    Args:
        name: name of the class.
        kind: the class.
        images: number of images to ask for.
    """
    given = {key: value(argument) for key, argument in specs()[name].get("inputs", {}).items()}
    return called(given, inspect.signature(kind.__call__).parameters, images)


def called(given, accepted, images):
    """Add prompts, seeds and steps for a number of images to arguments; drop arguments that the call does not take."""
    given = {**given, "output_type": "np", "num_inference_steps": STEPS}
    if int(given.get("strength", 1.0) * STEPS) < 2:
        given["strength"] = 1.0
    generators = [torch.Generator().manual_seed(seed) for seed in range(images)]
    given["generator"] = generators if images > 1 else generators[0]
    if "prompt" in accepted and given.get("prompt") is not False:
        given["prompt"] = PROMPTS[:images] if images > 1 else "a blue square"
    if "negative_prompt" in accepted:
        given["negative_prompt"] = [""] * images if images > 1 else ""
    return {key: argument for key, argument in given.items() if key in accepted}


def value(spec):  # noqa: PLR0911 (one per kind)
    """Return the value of an argument: a picture or tensor if the spec describes one, otherwise the spec itself."""
    if isinstance(spec, list):
        return [value(item) for item in spec]
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
    return {key: value(item) for key, item in spec.get("dict", {}).items()}
