"""What users see of unfinished images: live previews, and what the host saves on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pictures

if TYPE_CHECKING:
    from collections.abc import Callable


class LivePreviews:
    """Stands between the host and the picture that it shows while a job runs.

    Args:
        state: the host's, whose ``assign_current_image`` shows it.
        allowed: says ``withhold``, ``blur`` or ``allow`` of the job that is running.
    """

    def __init__(self, state: Any, allowed: Callable[[], str]) -> None:
        self._state = state
        self._allowed = allowed

    def install(self) -> None:
        """Stand there."""
        self._state.assign_current_image = self._show

    def remove(self) -> None:
        """Stand aside."""
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
