"""Blur or hide the live previews that the host shows while a job runs, as the policy asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pictures

if TYPE_CHECKING:
    from collections.abc import Callable


class LivePreviews:
    """A replacement for the host's method that shows a live preview.

    Args:
        state: the host's state, whose method ``assign_current_image`` shows a preview.
        allowed: returns ``withhold``, ``blur`` or ``allow`` for the running job.
    """

    def __init__(self, state: Any, allowed: Callable[[], str]) -> None:
        self._state = state
        self._allowed = allowed

    def install(self) -> None:
        """Replace the host's method."""
        self._state.assign_current_image = self._show

    def remove(self) -> None:
        """Restore the host's method."""
        vars(self._state).pop("assign_current_image", None)

    def _show(self, image: Any) -> None:
        allowed = self._allowed()
        if allowed == "allow":
            shown = image
        elif allowed == "blur":
            shown = pictures.blurred(image)
        else:
            return
        type(self._state).assign_current_image(self._state, shown)
