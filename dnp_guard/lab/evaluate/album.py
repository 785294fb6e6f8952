"""Keep the pictures that a guard shows its VLM, for measurement and for contact sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.types import Step


class Album:
    """Plugin that keeps every queried preview of the latest generation, and the finished images before any action.

    Attributes:
        looks: previews by queried step, one per image.
        final: the finished images, before the final look (their own query) may blur or block them.
    """

    def __init__(self) -> None:
        self.looks: dict[int, list[Image]] = {}
        self.final: list[Image] = []
        self._request = ""

    @hookimpl
    def dnp_guard_before_query(self, request: str, step: Step | None, images: Sequence[Image]) -> None:
        """Keep the pictures that the guard is about to query."""
        if request != self._request:
            self._request, self.looks, self.final = request, {}, []
        if step is None:
            self.final = list(images)
        else:
            self.looks[step.index] = list(images)
