"""The runs whose images have not had their final look yet, by the node that guards them.

A workflow may sample more than once with the model that one node guards. Whose run an image came of is told by the
graph: the node that sampled is one of those that the image was made by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .run import Run
    from .settings import Settings

_KEPT = 64
"""Nodes whose latest runs are kept for their reports."""


class Runs:
    """Open runs, and the latest ones for the reports."""

    def __init__(self) -> None:
        self._open: dict[str, list[Run]] = {}
        self._latest: dict[str, list[Run]] = {}
        self._made_with: dict[str, tuple[Settings, str]] = {}

    def begin(self, node: str, run: Run, made_with: tuple[Settings, str]) -> None:
        """Take in a run; what an earlier workflow left open is abandoned.

        Args:
            node: that guards it.
            run: that begins.
            made_with: the settings and the policy of that node.
        """
        stale = [each for each in self._open.get(node, []) if each.prompt != run.prompt]
        for each in stale:
            each.batch.abandon()
        self._open[node] = [*(each for each in self._open.get(node, []) if each not in stale), run]
        same = [each for each in self._latest.pop(node, []) if each.prompt == run.prompt]
        self._latest[node] = [*same, run]
        self._made_with[node] = made_with
        while len(self._latest) > _KEPT:
            oldest = next(iter(self._latest))
            del self._latest[oldest], self._made_with[oldest]

    def abandon(self, node: str, run: Run) -> None:
        """Give a run up that has no images."""
        self._open[node] = [each for each in self._open.get(node, []) if each is not run]
        run.batch.abandon()

    def settle(self, nodes: Sequence[str], pictures: Sequence[Any], made_of: Collection[str], item: int) -> list[Run]:
        """Make the final look of every open run of some nodes that the images were made of.

        Args:
            nodes: that guard.
            pictures: the finished images.
            made_of: the nodes that the images were made by; empty where that is not known, for any.
            item: of the list that the final look is mapped over, where the runs are, too.

        Returns:
            Those it was made for.
        """
        settled = []
        for node in nodes:
            runs = [run for run in self._open.get(node, []) if run.images == len(pictures)]
            runs = [run for run in runs if not made_of or run.drawn_by is None or _within(run.drawn_by[0], made_of)]
            items = {run.drawn_by[1] for run in runs if run.drawn_by is not None}
            if item in items:
                runs = [run for run in runs if run.drawn_by is None or run.drawn_by[1] == item]
            self._open[node] = [run for run in self._open.get(node, []) if run not in runs]
            settled += runs
        for run in settled:
            run.settle(pictures)
        return settled

    def latest(self, node: str) -> list[Run]:
        """The runs of the latest workflow that this node guarded."""
        return self._latest.get(node, [])

    def made_with(self, nodes: Sequence[str]) -> tuple[Settings, str] | None:
        """The settings and the policy of the first of some nodes that has guarded a run; None where none has."""
        return next((self._made_with[node] for node in nodes if node in self._made_with), None)


def made_of(graph: Any, name: str, key: str) -> set[str]:
    """The nodes that one input of a node was made by; none where that cannot be said.

    Args:
        graph: the workflow that runs, with ``get_node``; nodes that were put in while it ran are in it.
        name: the node.
        key: of its input.
    """
    found: set[str] = set()
    inputs = {key: _inputs(graph, name).get(key)}
    ahead = [inputs]
    for each in ahead:
        for value in each.values():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) not in found:  # noqa: PLR2004 (a link)
                found.add(str(value[0]))
                ahead.append(_inputs(graph, str(value[0])))
    return found


def _inputs(graph: Any, name: str) -> dict[str, Any]:
    try:
        return dict(graph.get_node(name).get("inputs", {}))
    except Exception:  # noqa: BLE001 (no graph, or no such node: nothing is said of it)
        return {}


def _within(node: str, others: Collection[str]) -> bool:
    """Whether a node is one of others, or was put in by one of them: such a node's id begins with the other's."""
    return any(node == each or node.startswith(f"{each}.") for each in others)


RUNS = Runs()
