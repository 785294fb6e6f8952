"""Glyphs: a tiny text-to-image model and vision-language model in the package, and the scenes they were trained on."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PIPELINE = WEIGHTS / "pipeline"
"""The text-to-image model: ``StableDiffusionPipeline.from_pretrained(PIPELINE, safety_checker=None)``."""
FAST = WEIGHTS / "fast"
"""The denoiser and scheduler of the few-step model; everything else is shared with ``PIPELINE``."""
PROBE = WEIGHTS / "probe" / "model.safetensors"
"""The latent probe, which predicts the vision-language model's findings from latents."""
VLM = WEIGHTS / "vlm"
"""The vision-language model: ``AutoModelForImageTextToText`` and ``AutoProcessor``."""
