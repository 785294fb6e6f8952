"""What judges the images: detectors by plugin. Each is independent of everything that the guard can see."""

from dnp_guard.lab.evaluate.detectors.base import Detection, ImageDetector, describe
from dnp_guard.lab.evaluate.detectors.plugin import KINDS, build

__all__ = ["KINDS", "Detection", "ImageDetector", "build", "describe"]
