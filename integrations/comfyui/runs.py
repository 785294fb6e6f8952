"""Keep the guarded runs by their *DNP Guard* node, until a *Final Look* node has judged their images.

A workflow may sample several times with the model of one *DNP Guard* node. The graph tells which run generated an
image: the node that sampled is among the nodes that the image depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .run import Run
    from .settings import Settings

_KEPT = 64
"""Number of *DNP Guard* nodes whose latest runs are kept for reports."""


class Runs:
    """The runs that await their final look, and every node's latest runs for reports."""

    def __init__(self) -> None:
        self._open: dict[str, list[Run]] = {}
        self._latest: dict[str, list[Run]] = {}
        self._made_with: dict[str, tuple[Settings, str]] = {}

    def begin(self, node: str, run: Run, made_with: tuple[Settings, str]) -> None:
        """Add a run, and abandon the same node's open runs of an earlier workflow.

        Args:
            node: id of the *DNP Guard* node.
            run: the new run.
            made_with: settings and policy of that node.
        """
        stale = [opened for opened in self._open.get(node, []) if opened.prompt != run.prompt]
        for abandoned in stale:
            abandoned.batch.abandon()
        self._open[node] = [*(opened for opened in self._open.get(node, []) if opened not in stale), run]
        same = [finished for finished in self._latest.pop(node, []) if finished.prompt == run.prompt]
        self._latest[node] = [*same, run]
        self._made_with[node] = made_with
        while len(self._latest) > _KEPT:
            oldest = next(iter(self._latest))
            del self._latest[oldest], self._made_with[oldest]

    def abandon(self, node: str, run: Run) -> None:
        """Remove a run that failed before it had finished images, and end its session."""
        self._open[node] = [opened for opened in self._open.get(node, []) if opened is not run]
        run.batch.abandon()

    def settle(self, nodes: Sequence[str], pictures: Sequence[Any], made_of: Collection[str], item: int) -> list[Run]:
        """Make the final look of the open runs that generated the images, and close these runs.

        Args:
            nodes: ids of the *DNP Guard* nodes.
            pictures: the finished images.
            made_of: ids of the nodes that the images depend on; empty if unknown, and then any node matches.
            item: index of the current list item, if *Final Look* runs once per item; selects the runs of that item.

        Returns:
            The runs that generated the images.
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
        """Return the runs that this *DNP Guard* node guarded in its latest workflow."""
        return self._latest.get(node, [])

    def made_with(self, nodes: Sequence[str]) -> tuple[Settings, str] | None:
        """Return settings and policy of the first of these nodes that has guarded a run; None if none has."""
        return next((self._made_with[node] for node in nodes if node in self._made_with), None)


def made_of(graph: Any, name: str, key: str) -> set[str]:
    """Return the ids of all nodes that one input of a node depends on; empty if unknown.

    Args:
        graph: ComfyUI's running workflow, with ``get_node``; it includes nodes that were added while it runs.
        name: id of the node.
        key: name of the input.
    """
    names: set[str] = set()
    inputs = {key: _inputs(graph, name).get(key)}
    ahead = [inputs]
    for source in ahead:
        for value in source.values():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) not in names:  # noqa: PLR2004 (a link)
                names.add(str(value[0]))
                ahead.append(_inputs(graph, str(value[0])))
    return names


def _inputs(graph: Any, name: str) -> dict[str, Any]:
    try:
        return dict(graph.get_node(name).get("inputs", {}))
    except Exception:  # noqa: BLE001 (without a graph or a node of this name, the inputs are unknown)
        return {}


def _within(node: str, others: Collection[str]) -> bool:
    """Return whether a node is among others, or was added by one of them, whose id is then the prefix of its own."""
    return any(node == other or node.startswith(f"{other}.") for other in others)


RUNS = Runs()
