"""What has become of the images since ComfyUI started, for whoever watches it: ``GET /dnp-guard/status``."""

from __future__ import annotations

from collections import Counter
from typing import Any

COUNTS: Counter[str] = Counter()
"""Images by decision: those that a final look delivered, and those of runs that were ended for want of a guard."""


def status() -> dict[str, Any]:
    """What is answered."""
    return {"images": dict(COUNTS)}


def register() -> None:
    """Answer from now on."""
    from aiohttp import web  # noqa: PLC0415 (ComfyUI's own, there when this runs)
    from server import PromptServer  # noqa: PLC0415 (a part of ComfyUI)

    async def answered(_request: Any) -> Any:
        return web.json_response(status())

    PromptServer.instance.routes.get("/dnp-guard/status")(answered)
