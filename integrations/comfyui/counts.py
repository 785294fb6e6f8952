"""Count the images by outcome since ComfyUI started, and publish the counts at ``GET /dnp-guard/status``."""

from __future__ import annotations

from collections import Counter
from typing import Any

COUNTS: Counter[str] = Counter()
"""Number of images per outcome, counted at the final look, or when a run ends because it cannot be guarded."""


def status() -> dict[str, Any]:
    """Return the counts as the body of the route's answer."""
    return {"images": dict(COUNTS)}


def register() -> None:
    """Add the route ``GET /dnp-guard/status`` to ComfyUI's server."""
    from aiohttp import web  # noqa: PLC0415 (ComfyUI's own, there when this runs)
    from server import PromptServer  # noqa: PLC0415 (a part of ComfyUI)

    async def answered(_request: Any) -> Any:
        return web.json_response(status())

    PromptServer.instance.routes.get("/dnp-guard/status")(answered)
