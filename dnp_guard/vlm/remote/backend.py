"""Shared parts of the backends over HTTP: the base class, the trial question, and the reading of JSON answers."""

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
    """A backend that queries a server, which takes several calls at once.

    Args:
        model: the server's name for the model.
        urls: base URLs of servers with the same model, the preferred one first.
        options: passed to :class:`~dnp_guard.vlm.remote.transport.Transport`.

    Attributes:
        name: name of the model.
        revision: the revision that the server reports; ``"unknown"`` if it reports none.
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
        """Return the state of each base URL's circuit breaker."""
        return self._transport.states()

    def close(self) -> None:
        """Close the connections and end their thread."""
        self._transport.close()


def trial_picture() -> Image.Image:
    """Return the picture of the trial question, a grey gradient."""
    return Image.linear_gradient("L").resize((64, 64)).convert("RGB")


def untried(model: str, error: VlmError) -> VlmUnavailable:
    """Return the error for a server that gave no usable answer to the trial question, which is sent before any other.

    The error quotes the server's reply. It cannot contain a policy's question, because the server has received none.
    """
    reason = f': "{error.words}"' if isinstance(error, Refused) and error.words else ""
    return VlmUnavailable(f"{model}: {error.message}{reason}", hint=error.hint)


def member(answer: Any, kind: type, *path: str | int) -> Any:
    """Look up the value at a path of keys in a server's JSON answer, and check its type.

    Raises:
        VlmBadAnswer: the value is missing, or has another type.
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


_HINT = "The answer does not have the form of this kind of endpoint; check the spec's kind and base URL."
