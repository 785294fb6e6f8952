"""Encode the negative prompts of one generation, and put them in force at the next step, for every kind of pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.steering.branch import Term

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from dnp_guard.types import Negative


class Held:
    """The guard's negative prompts of one generation: those that steer now, and those that wait for the next step.

    Args:
        encode: encodes the text of a negative prompt for the denoiser.
        users: the user's own negative prompt per image, appended to the guard's under ``guidance.mode: replace``.

    Attributes:
        active: encoded negative prompt in force for every steered image, by batch index.
    """

    def __init__(self, encode: Callable[[str], Any], users: Sequence[str]) -> None:
        self.active: Mapping[int, Term] = {}
        self._encode = encode
        self._users = users
        self._encoded: dict[str, Any] = {}
        self._next: Mapping[int, Term] | None = None

    def hold(self, negatives: Sequence[Negative | None]) -> None:
        """Encode new negative prompts, one per image or None; they take effect at the next :meth:`take`."""
        self._next = {
            index: self._term(negative, self._users[index])
            for index, negative in enumerate(negatives)
            if negative is not None
        }

    def take(self) -> None:
        """Put the negative prompts of the latest :meth:`hold` in force; call it when a denoising step begins."""
        if self._next is not None:
            self.active, self._next = self._next, None

    def _term(self, negative: Negative, users: str) -> Term:
        if (how := negative.attention) is not None:
            texts = [", ".join(group) for group in negative.groups]
            parts = tuple(Term(text, self._known(text), 0.0, how) for text in texts)
            beside = self._known(negative.text) if negative.scale else None
            return Term(negative.text, beside, negative.scale or 0.0, how, parts)
        text = f"{negative.text}, {users}" if negative.mode == "replace" and users else negative.text
        return Term(text, self._known(text), negative.scale or 0.0)

    def _known(self, text: str) -> Any:
        if text not in self._encoded:  # encode one by one: a longer text may lengthen the others' conditioning
            self._encoded[text] = self._encode(text)
        return self._encoded[text]
