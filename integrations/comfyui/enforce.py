"""``enforce: server``: every workflow that is queued is guarded, whatever nodes it has.

The graph is rewritten before the host validates it: a guard behind every model, a final look before every output. The
host swallows what a prompt handler raises and goes on with the plain workflow, so a workflow that cannot be guarded is
replaced by one that the host refuses, with the reason in it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("dnp_guard")

GUARD, LOOK, REPORT = "DNPGuard", "DNPGuardFinalLook", "DNPGuardReport"
_OURS = {GUARD, LOOK, REPORT}


class CannotGuard(Exception):
    """A workflow into which no guard can be put."""


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
        """The type of an output."""
        types = tuple(getattr(self._class(source[0]), "RETURN_TYPES", ()))
        return str(types[source[1]]) if source[1] < len(types) else "*"

    def carries(self, source: tuple[str, int], name: str, key: str) -> str:
        """The type of what a link carries: of the input it leads to, where the output may be of any type."""
        kind = self.kind(source)
        inputs = getattr(self._class(name), "INPUT_TYPES", dict)() if kind == "*" else {}
        taken = next((part[key] for part in inputs.values() if key in part), None)
        return str(taken[0]) if taken else kind

    def outputs(self, name: str) -> bool:
        """Whether a node delivers something: saves, shows or sends it, or makes a video to be saved."""
        kind = self._class(name)
        return bool(getattr(kind, "OUTPUT_NODE", False)) or "VIDEO" in getattr(kind, "RETURN_TYPES", ())

    def _class(self, name: str) -> Any:
        return self._classes.get(self.nodes[name].get("class_type"))

    def sources(self, kind: str) -> list[tuple[str, int]]:
        """Every output of a type that something is linked to, in order."""
        found = [source for name in self.nodes for _, source in self.links(name) if self.kind(source) == kind]
        return list(dict.fromkeys(found))

    def upstream(self, starts: list[str]) -> Iterator[str]:
        """Nodes that others depend on, the nearest first, those themselves included."""
        seen, level = set(starts), list(starts)
        while level:
            yield from level
            nearer = dict.fromkeys(source for name in level for _, (source, _slot) in self.links(name))
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


def guarded(nodes: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow with a guard behind every model and a final look before every output of images.

    Args:
        nodes: the workflow in the form of the API.
        classes: of every node the host knows, by name.

    Raises:
        CannotGuard: there is nothing to encode a negative with, or an output that cannot be looked at.
    """
    graph = Graph(nodes, classes)
    _refuse_unseen(graph)
    plain = list(graph.nodes)
    guards = {source: _guard(graph, source, number) for number, source in enumerate(graph.sources("MODEL"))}
    for name in plain:
        for key, source in list(graph.links(name)):
            if source in guards:
                graph.nodes[name]["inputs"][key] = [guards[source], 0]
    looks: dict[tuple[str, int], str] = {}  # one for all that deliver the same: a run has one final look
    for name in plain:
        if not graph.outputs(name) or graph.nodes[name]["class_type"] in _OURS:
            continue
        for key, source in list(graph.links(name)):
            if graph.carries(source, name, key) == "IMAGE":
                if source not in looks:
                    drawn = graph.nodes[source[0]]["class_type"] != REPORT  # and not its strip of looks
                    ids = [each for each in graph.upstream([source[0]]) if drawn and each in guards.values()]
                    looks[source] = f"dnp-guard-look-{len(looks)}"
                    graph.insert(looks[source], LOOK, {"images": list(source), "guards": ",".join(ids)})
                graph.nodes[name]["inputs"][key] = [looks[source], 0]
    return graph.nodes


def _refuse_unseen(graph: Graph) -> None:
    for name in graph.nodes:
        if name.startswith("dnp-guard-"):
            raise CannotGuard(f"node id {name} is taken")
        delivered = [graph.carries(source, name, key) for key, source in graph.links(name) if graph.outputs(name)]
        if "LATENT" in delivered:
            raise CannotGuard(f"{graph.nodes[name]['class_type']} delivers latents, which cannot be looked at")


def _guard(graph: Graph, source: tuple[str, int], number: int) -> str:
    name = f"dnp-guard-{number}"
    nearest = {kind: _nearest(graph, source, kind) for kind in ("CLIP", "VAE")}
    if nearest["CLIP"] is None:
        raise CannotGuard("the workflow has a model and no text encoder to steer it with")
    inputs = {"model": list(source), "clip": nearest["CLIP"], "policy": "", "mode": "auto", "vlm": "", "service": ""}
    graph.insert(name, GUARD, inputs | ({"vae": nearest["VAE"]} if nearest["VAE"] else {}))
    return name


def _nearest(graph: Graph, model: tuple[str, int], kind: str) -> list[Any] | None:
    """The output of a type that is nearest to where a model is used, and does not depend on the model itself."""
    users = graph.users_of(model)
    downstream = {name for name in graph.nodes if model[0] in graph.upstream([name])} - {model[0]}
    for name in (*graph.upstream(users), *graph.nodes):
        for _, source in graph.links(name):
            if graph.kind(source) == kind and source[0] not in downstream:
                return list(source)
    return None


def handled(document: dict[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """What a client queued, guarded; never raises, as the host would go on with the plain workflow.

    Args:
        document: the body of the request.
        classes: of every node the host knows, by name.
    """
    try:
        if "prompt" not in document:
            return document
        return {**document, "prompt": guarded(document["prompt"], classes)}
    except Exception as error:
        reason = str(error) if isinstance(error, CannotGuard) else "it could not be read"
        log.exception("DNP Guard refuses a workflow: %s", reason)
        refused = {"dnp-guard-refused": {"class_type": f"(refused by DNP Guard: {reason})", "inputs": {}}}
        return {**document, "prompt": refused}


def register() -> bool:
    """Guard every workflow from now on, where the operator wants that; whether it is so.

    Settings that cannot be read enforce: nothing is generated until they are mended.
    """
    try:
        wanted = load().enforce == "server"
    except Exception:
        log.exception("DNP Guard: its settings cannot be used, so every workflow is refused")
        wanted = True
    if not wanted:
        return False
    import nodes  # noqa: PLC0415 (a part of ComfyUI)
    from server import PromptServer  # noqa: PLC0415

    PromptServer.instance.add_on_prompt_handler(lambda document: handled(document, nodes.NODE_CLASS_MAPPINGS))
    return True
