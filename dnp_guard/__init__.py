"""A safety guard for image generation: dynamic VLM-guided negative prompting while the image is denoised."""

from dnp_guard._version import __version__
from dnp_guard.hookspecs import hookimpl

__all__ = ["__version__", "hookimpl"]
