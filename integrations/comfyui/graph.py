"""A workflow as a graph of nodes: what is linked to what, and which type a link carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ANY = "*"
"""The type of what may be anything."""


class Graph:
    """A workflow in the form of the API: nodes by id, each with its class and inputs; a link is ``[id, slot]``.

    Args:
        nodes: the workflow.
        classes: of every node the host knows, by name.
    """

    def __init__(self, nodes: Mapping[str, Any], classes: Mapping[str, Any]) -> None:
        self.nodes = {str(name): {**node, "inputs": dict(node.get("inputs", {}))} for name, node in nodes.items()}
        self._classes = classes

    def links(self, name: str) -> Iterator[tuple[str, tuple[str, int]]]:
        """The inputs of a node that are links, and where each leads."""
        for key, value in self.nodes[name]["inputs"].items():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in self.nodes:  # noqa: PLR2004 (a pair)
                yield key, (str(value[0]), int(value[1]))

    def kind(self, source: tuple[str, int]) -> str:
        """The type of an output; a list of choices is a ``COMBO``."""
        types = tuple(getattr(self._class(source[0]), "RETURN_TYPES", ()))
        return _name(types[source[1]]) if source[1] < len(types) else ANY

    def carries(self, source: tuple[str, int], name: str, key: str) -> str:
        """The type of what a link carries: of the input it leads to, where the output may be of any type."""
        kind = self.kind(source)
        inputs = getattr(self._class(name), "INPUT_TYPES", dict)() if kind == ANY else {}
        taken = next((part[key] for part in inputs.values() if key in part), None)
        return _name(taken[0]) if taken else kind

    def class_type(self, name: str) -> str:
        """The name of a node's class."""
        return str(self.nodes[name].get("class_type"))

    def outputs(self, name: str) -> bool:
        """Whether a node delivers something: saves, shows or sends it, or makes a video to be saved."""
        kind = self._class(name)
        shows = getattr(kind, "OUTPUT_NODE", False) or getattr(kind, "HAS_INTERMEDIATE_OUTPUT", False)
        return bool(shows) or "VIDEO" in getattr(kind, "RETURN_TYPES", ())

    def knows(self, class_type: str) -> bool:
        """Whether the host has a class of nodes."""
        return class_type in self._classes

    def _class(self, name: str) -> Any:
        return self._classes.get(self.nodes[name].get("class_type"))

    def sources(self, kind: str) -> list[tuple[str, int]]:
        """Every output of a type that something is linked to, in order."""
        found = [source for name in self.nodes for _, source in self.links(name) if self.kind(source) == kind]
        return list(dict.fromkeys(found))

    def upstream(self, starts: list[str], kind: str = "") -> Iterator[str]:
        """Nodes that others depend on, the nearest first, those themselves included.

        Args:
            starts: the others.
            kind: the only type of links to follow; empty for every type.
        """
        seen, level = set(starts), list(starts)
        while level:
            yield from level
            links = [source for name in level for _, source in self.links(name)]
            nearer = dict.fromkeys(source[0] for source in links if kind in {"", self.kind(source)})
            level = [name for name in nearer if name not in seen]
            seen.update(level)

    def users_of(self, source: tuple[str, int]) -> list[str]:
        """The nodes that sample with a model: linked to it, or to what was made of it."""
        users, models = [], [source]
        for model in models:
            for name in self.nodes:
                if model not in [each for _, each in self.links(name)]:
                    continue
                types = getattr(self._class(name), "RETURN_TYPES", ())
                made = [(name, slot) for slot, kind in enumerate(types) if kind == "MODEL"]
                models += [each for each in made if each not in models]
                users += [] if made else [name]
        return users

    def insert(self, name: str, class_type: str, inputs: dict[str, Any]) -> None:
        """Add a node."""
        self.nodes[name] = {"class_type": class_type, "inputs": inputs}


def _name(kind: Any) -> str:
    return "COMBO" if isinstance(kind, list | tuple) else str(kind)
