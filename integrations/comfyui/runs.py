"""The runs whose images have not had their final look yet, by the node that guards them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .run import Run

_KEPT = 64
"""Nodes whose latest runs are kept for their reports."""


class Runs:
    """Open runs, and the latest ones for the reports."""

    def __init__(self) -> None:
        self._open: dict[str, list[Run]] = {}
        self._latest: dict[str, list[Run]] = {}

    def begin(self, node: str, run: Run) -> None:
        """Take in a run; what an earlier workflow left open is abandoned."""
        stale = [each for each in self._open.get(node, []) if each.prompt != run.prompt]
        for each in stale:
            each.batch.abandon()
        self._open[node] = [*(each for each in self._open.get(node, []) if each not in stale), run]
        same = [each for each in self._latest.pop(node, []) if each.prompt == run.prompt]
        self._latest[node] = [*same, run]
        while len(self._latest) > _KEPT:
            del self._latest[next(iter(self._latest))]

    def abandon(self, node: str, run: Run) -> None:
        """Give a run up that has no images."""
        self._open[node] = [each for each in self._open.get(node, []) if each is not run]
        run.batch.abandon()

    def settle(self, nodes: Sequence[str], pictures: Sequence[Any]) -> list[Run]:
        """Make the final look of every open run of some nodes that drew as many images as there are.

        Returns:
            Those it was made for.
        """
        settled = []
        for node in nodes:
            drawn = [run for run in self._open.get(node, []) if run.images == len(pictures)]
            self._open[node] = [run for run in self._open.get(node, []) if run not in drawn]
            settled += drawn
        for run in settled:
            run.batch.settle(pictures)
        return settled

    def latest(self, node: str) -> list[Run]:
        """The runs of the latest workflow that this node guarded."""
        return self._latest.get(node, [])


RUNS = Runs()
