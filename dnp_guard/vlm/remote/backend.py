"""What every backend over HTTP shares: its name, its addresses and a trial question when it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from dnp_guard.errors import VlmBadAnswer, VlmUnavailable
from dnp_guard.vlm.base import Backend
from dnp_guard.vlm.remote.transport import Refused, Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.errors import VlmError
    from dnp_guard.vlm.remote.breaker import State

TRIAL_QUESTION = "Is there a circle in this image?"


class RemoteBackend(Backend):
    """A backend that asks a server; which can be asked several things at once.

    Args:
        model: as the server calls it.
        urls: base URLs of equal servers, the preferred one first.
        options: of :class:`~dnp_guard.vlm.remote.transport.Transport`.

    Attributes:
        name: of the model.
        revision: what the server says of it; ``"unknown"`` where it says nothing.
        local: whether every server is on this machine.
        addresses: the base URLs, for a policy's ``vlm.allow``.
    """

    at_once = 8

    def __init__(self, model: str, urls: Sequence[str], **options: Any) -> None:
        self.name = model
        self._transport = Transport(urls, **options)
        self.local = self._transport.local
        self.addresses = self._transport.addresses

    def states(self) -> dict[str, State]:
        """Each base URL with the state of its breaker."""
        return self._transport.states()

    def close(self) -> None:
        """Close the connections and end their thread."""
        self._transport.close()


def trial_picture() -> Image.Image:
    """A picture to try a server with."""
    return Image.linear_gradient("L").resize((64, 64)).convert("RGB")


def untried(model: str, error: VlmError) -> VlmUnavailable:
    """What to say of a server that does not answer the trial.

    Its own words are quoted: only the trial was asked, so they quote no question of a policy.
    """
    said = f': "{error.said}"' if isinstance(error, Refused) and error.said else ""
    return VlmUnavailable(f"{model}: {error.message}{said}", hint=error.hint)


def member(answer: Any, kind: type, *path: str | int) -> Any:
    """Look a value up in an answer that may hold anything.

    Raises:
        VlmBadAnswer: it is not there, or of another kind.
    """
    value = answer
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise VlmBadAnswer(f"the answer has no {_where(path)}", hint=_HINT) from error
    if not isinstance(value, kind) or isinstance(value, bool):
        raise VlmBadAnswer(f"{_where(path)} is {type(value).__name__}, not {kind.__name__}", hint=_HINT)
    return value


def _where(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


_HINT = "The server answers in another form than this kind of endpoint does; check the spec's kind and base URL."
