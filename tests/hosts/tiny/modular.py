"""Modular pipelines of the components of tiny ordinary ones."""

import diffusers
import numpy as np
import torch

from tests.hosts.tiny import of_diffusers, tiny

OF_OURS = {
    "FluxKontextModularPipeline": "FluxKontextPipeline",
    "FluxModularPipeline": "FluxPipeline",
    "LTXModularPipeline": "LTXPipeline",
    "QwenImageModularPipeline": "QwenImagePipeline",
    "StableDiffusion3ModularPipeline": "StableDiffusion3Pipeline",
    "StableDiffusionXLModularPipeline": "StableDiffusionXLPipeline",
    "WanModularPipeline": "WanPipeline",
    "Wan22ModularPipeline": "WanPipeline",
    "ZImageModularPipeline": "ZImagePipeline",
}
OF_DIFFUSERS = {
    "Flux2KleinBaseModularPipeline": "Flux2KleinPipeline",
    "Flux2KleinModularPipeline": "Flux2KleinPipeline",
    "HunyuanVideo15ModularPipeline": "HunyuanVideo15Pipeline",
    "Krea2ModularPipeline": "Krea2Pipeline",
    "Krea2TurboModularPipeline": "Krea2Pipeline",
}
PIPELINES = {**OF_OURS, **OF_DIFFUSERS}
PROMPTS = ["a red circle", "a blue square", "a green cross"]


def built(name):
    """A modular pipeline of a class."""
    ours = OF_OURS.get(name)
    parts = tiny(ours).components if ours else of_diffusers.components(OF_DIFFUSERS[name])
    pipe = getattr(diffusers, name)()
    known = {part: each for part, each in parts.items() if each is not None and part in pipe.component_names}
    if name.startswith("Wan22"):
        known["transformer_2"] = known["transformer"]
    pipe.update_components(**known)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, images):
    """Items from fixed seeds, as arrays."""
    accepted = {each.name for each in pipe.blocks.inputs}
    one = images == 1
    generators = [torch.Generator().manual_seed(seed) for seed in range(images)]
    given = {
        "prompt": PROMPTS[1] if one else PROMPTS[:images],
        "negative_prompt": "" if one else [""] * images,
        "generator": generators[0] if one else generators,
        "num_inference_steps": 4,
        "height": 32,
        "width": 32,
        "max_sequence_length": 16,
        "num_frames": 9,
        "output_type": "np",
    }
    state = pipe(**{key: each for key, each in given.items() if key in accepted})
    items = next(state.values[key] for key in ("images", "videos") if state.values.get(key) is not None)
    return np.asarray(items)
