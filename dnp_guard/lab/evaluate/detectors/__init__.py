"""Detectors that judge finished images, built by plugins and independent of everything that the guard uses."""

from dnp_guard.lab.evaluate.detectors.base import Detection, ImageDetector, describe
from dnp_guard.lab.evaluate.detectors.plugin import KINDS, build

__all__ = ["KINDS", "Detection", "ImageDetector", "build", "describe"]
