"""Read a ComfyUI workflow as a graph of nodes and typed links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ANY = "*"
"""The type of an input or output that may be anything."""


class Graph:
    """A workflow in the format of ComfyUI's API.

    Every node has an id, a class and inputs. An input is a value, or a link ``[id, slot]`` to the output number
    ``slot`` of another node, called the link's source.

    Args:
        nodes: the workflow, nodes by id.
        classes: the classes of all node types that ComfyUI knows, by name.
    """

    def __init__(self, nodes: Mapping[str, Any], classes: Mapping[str, Any]) -> None:
        self.nodes = {str(name): {**node, "inputs": dict(node.get("inputs", {}))} for name, node in nodes.items()}
        self._classes = classes

    def links(self, name: str) -> Iterator[tuple[str, tuple[str, int]]]:
        """Yield the name and the source of every input of a node that is a link."""
        for key, value in self.nodes[name]["inputs"].items():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in self.nodes:  # noqa: PLR2004 (a pair)
                yield key, (str(value[0]), int(value[1]))

    def kind(self, source: tuple[str, int]) -> str:
        """Return the type of an output, such as ``IMAGE``; a list of choices has the type ``COMBO``."""
        types = tuple(getattr(self._class(source[0]), "RETURN_TYPES", ()))
        return _name(types[source[1]]) if source[1] < len(types) else ANY

    def carries(self, source: tuple[str, int], name: str, key: str) -> str:
        """Return the type of data that a link carries: its output's type, or its input's if the output has any type."""
        kind = self.kind(source)
        inputs = getattr(self._class(name), "INPUT_TYPES", dict)() if kind == ANY else {}
        taken = next((part[key] for part in inputs.values() if key in part), None)
        return _name(taken[0]) if taken else kind

    def class_type(self, name: str) -> str:
        """Return the name of a node's class."""
        return str(self.nodes[name].get("class_type"))

    def outputs(self, name: str) -> bool:
        """Return whether a node delivers results: saves, shows or sends them, or makes a video to be saved."""
        kind = self._class(name)
        shows = getattr(kind, "OUTPUT_NODE", False) or getattr(kind, "HAS_INTERMEDIATE_OUTPUT", False)
        return bool(shows) or "VIDEO" in getattr(kind, "RETURN_TYPES", ())

    def knows(self, class_type: str) -> bool:
        """Return whether ComfyUI knows a node class of this name."""
        return class_type in self._classes

    def _class(self, name: str) -> Any:
        return self._classes.get(self.nodes[name].get("class_type"))

    def sources(self, kind: str) -> list[tuple[str, int]]:
        """Return all outputs of a type that some node takes as input, in the order of the nodes."""
        outputs = [source for name in self.nodes for _, source in self.links(name) if self.kind(source) == kind]
        return list(dict.fromkeys(outputs))

    def upstream(self, starts: list[str], kind: str = "") -> Iterator[str]:
        """Yield the given nodes and all nodes that they depend on, nearest first.

        Args:
            starts: the nodes to start from.
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
        """Return the nodes that use a model, directly or after other nodes have changed it, and output no model."""
        users, models = [], [source]
        for model in models:
            for name in self.nodes:
                if model not in [source for _, source in self.links(name)]:
                    continue
                types = getattr(self._class(name), "RETURN_TYPES", ())
                made = [(name, slot) for slot, kind in enumerate(types) if kind == "MODEL"]
                models += [source for source in made if source not in models]
                users += [] if made else [name]
        return users

    def insert(self, name: str, class_type: str, inputs: dict[str, Any]) -> None:
        """Add a node under the id ``name``."""
        self.nodes[name] = {"class_type": class_type, "inputs": inputs}


def _name(kind: Any) -> str:
    return "COMBO" if isinstance(kind, list | tuple) else str(kind)
