"""Repeat a pipeline's call, for images that the policy gives a retry.

The whole call is repeated from the caller's own seed, so that every image starts from the same noise as before. Images
that are not retried are drawn without steering, and thrown away. The caller's generators and the global random numbers
end as after one call. The caller's callback is called in a retry as in any other call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.diffusers.showing.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.hosts.diffusers.call import Call


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A guarded call that can be repeated, to draw images again.

    Attributes:
        guarded: the guarded call.
        call: the pipeline's own ``__call__``.
        kwargs: arguments of the call; the caller's callbacks in them see only as much as the policy allows.
        kind: ``output_type`` of the call.
    """

    guarded: Call
    call: Callable[..., Any]
    kwargs: Mapping[str, Any]
    kind: str

    def pictures(self, result: Output, /) -> Sequence[Image]:
        """Return the images of a result, or some frames of each video."""
        return result.pictures()

    def draw(self, images: tuple[int, ...], /) -> Output:
        """Repeat the call with the same arguments, from the same seed, and return its result."""
        recording = self.guarded.recording
        self.guarded.begin_again()
        with recording.once_more(self.kwargs) as kwargs:
            self.guarded.install()
            try:
                return Output(self.call(recording.pipe, **kwargs), self.kind, self.guarded)
            finally:
                self.guarded.remove()

    def merged(self, result: Output, drawn: Output, images: tuple[int, ...], /) -> Output:
        """Return the earlier result with the given images replaced by those of the new result."""
        return result.merged(drawn, images)
