"""A safety guard for image generation: dynamic VLM-guided negative prompting while the image is denoised."""

from dnp_guard._version import __version__
from dnp_guard.errors import CannotSteer, DnpGuardError, PolicyError, RequestRefused, VlmError
from dnp_guard.guard import Guard
from dnp_guard.hookspecs import hookimpl
from dnp_guard.policy import Policy, load_policy
from dnp_guard.types import Action, Decision, Outcome, Report

__all__ = [
    "Action",
    "CannotSteer",
    "Decision",
    "DnpGuardError",
    "Guard",
    "Outcome",
    "Policy",
    "PolicyError",
    "Report",
    "RequestRefused",
    "VlmError",
    "__version__",
    "hookimpl",
    "load_policy",
]
