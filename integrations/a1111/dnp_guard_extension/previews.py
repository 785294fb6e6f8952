"""Cover unfinished images for users, in live previews and in pictures that the host saves on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pictures

if TYPE_CHECKING:
    from collections.abc import Callable


class LivePreviews:
    """A cover between the host and the picture that it shows while a job runs.

    Args:
        state: the host's state, whose ``assign_current_image`` shows the picture.
        allowed: returns ``withhold``, ``blur`` or ``allow`` for the running job.
    """

    def __init__(self, state: Any, allowed: Callable[[], str]) -> None:
        self._state = state
        self._allowed = allowed

    def install(self) -> None:
        """Put the cover in place."""
        self._state.assign_current_image = self._show

    def remove(self) -> None:
        """Remove the cover."""
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
