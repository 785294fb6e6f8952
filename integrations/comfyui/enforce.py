"""Guard every queued workflow, whatever its nodes, if the setting ``enforce`` is ``server``.

Before ComfyUI validates a workflow, its graph is rewritten: a guard node is inserted after every model without one, and
a final look before every node that delivers pictures. A workflow is refused if it delivers data of an unknown type, or
pictures that no final look can reach. ComfyUI swallows the exceptions of a prompt handler and goes on with the original
workflow; so a refused workflow is replaced by one that fails ComfyUI's validation and contains the reason.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .graph import Graph
from .settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("dnp_guard")

GUARD, LOOK, REPORT, REFUSED = "DNPGuard", "DNPGuardFinalLook", "DNPGuardReport", "DNPGuardRefused"
AS_QUEUED = "prompt_as_queued"
"""Key of a picture's metadata that holds the workflow as the client queued it, before the rewriting."""

_TO_IMAGE, _TO_MASK = "MaskToImage", "ImageToMask"
_PREFIX = "dnp-guard-"
_PUT_BEHIND = {GUARD: "model", LOOK: "images", _TO_IMAGE: "mask", _TO_MASK: "image"}
"""The classes of inserted nodes, mapped to the input that takes over the original link."""

_NO_PICTURE = {
    *("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO", "NUMBER", "AUDIO", "DNP_GUARD"),
    *("MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "STYLE_MODEL", "UPSCALE_MODEL", "LORA_MODEL"),
    *("SAMPLER", "SIGMAS", "BOUNDING_BOX", "CURVE"),
}
"""The types of links that carry words, numbers, sound or weights, and so no picture."""

_WRITES_WORDS = {"PreviewAny"}
"""Output nodes that show any input as text, and so no picture."""


class CannotGuard(Exception):
    """The workflow cannot be guarded; the message says why."""


def guarded(nodes: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workflow with a guard node after every model, and a final look before every node that delivers pictures.

    Nodes from an earlier rewriting are removed first: a workflow loaded from a picture's metadata may have them.

    Args:
        nodes: the workflow in the format of ComfyUI's API.
        classes: the classes of all node types that ComfyUI knows, by name.

    Raises:
        CannotGuard: there is no text encoder for negatives, or the workflow delivers something that cannot be checked.
    """
    graph = Graph(unguarded(nodes), classes)
    plain = list(graph.nodes)
    models = [source for source in graph.sources("MODEL") if not _has_a_guard(graph, source)]
    guards = {source: _guard(graph, source, number) for number, source in enumerate(models)}
    for name in plain:
        for key, source in list(graph.links(name)):
            if source in guards:
                graph.nodes[name]["inputs"][key] = [guards[source], 0]
    looks: dict[tuple[str, int], list[Any]] = {}  # one final look for all outputs of the same pictures
    for name in plain:
        if not graph.outputs(name) or graph.class_type(name) in {*_PUT_BEHIND, REPORT, *_WRITES_WORDS}:
            continue
        for key, source in list(graph.links(name)):
            kind = graph.carries(source, name, key)
            if kind in {"IMAGE", "MASK"}:
                if source not in looks:
                    looks[source] = _look(graph, source, kind, len(looks))
                graph.nodes[name]["inputs"][key] = looks[source]
            elif kind not in _NO_PICTURE and not (kind == "VIDEO" and _is_looked_at(graph, source[0])):
                raise CannotGuard(f"{graph.class_type(name)} delivers {_called(kind)}, which cannot be looked at")
    return graph.nodes


def unguarded(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workflow without the nodes that :func:`guarded` inserted.

    Raises:
        CannotGuard: a node of another class has an id that is reserved for them.
    """
    ours = {name: node for name, node in nodes.items() if str(name).startswith(_PREFIX)}
    for name, node in ours.items():
        if node.get("class_type") not in _PUT_BEHIND:
            raise CannotGuard(f"its node {name} has an id that is reserved for the guard; give it another id")

    def behind(value: Any) -> Any:
        for _ in ours:
            if not (isinstance(value, list) and value and value[0] in ours):
                break
            node = ours[value[0]]
            value = node.get("inputs", {}).get(_PUT_BEHIND[node["class_type"]])
        return value

    remaining = {name: node for name, node in nodes.items() if name not in ours}
    return {
        name: {**node, "inputs": {key: behind(value) for key, value in node.get("inputs", {}).items()}}
        for name, node in remaining.items()
    }


def _has_a_guard(graph: Graph, source: tuple[str, int]) -> bool:
    """Return whether the workflow's own guard nodes cover a model: upstream, or as the only users of this output."""
    before = graph.upstream([source[0]], "MODEL")
    users = [name for name in graph.nodes if source in [other for _, other in graph.links(name)]]
    return GUARD in map(graph.class_type, before) or all(graph.class_type(name) == GUARD for name in users)


def _look(graph: Graph, source: tuple[str, int], kind: str, number: int) -> list[Any]:
    """Insert a final look after an output, and return the link to the checked output that replaces it."""
    drawn = graph.class_type(source[0]) != REPORT  # its sheet of previews was not drawn by a guarded run
    ids = [name for name in graph.upstream([source[0]]) if drawn and graph.class_type(name) == GUARD]
    if kind == "IMAGE" and graph.class_type(source[0]) == LOOK and source[1] == 0:
        graph.nodes[source[0]]["inputs"]["guards"] = ",".join(ids)  # the workflow's own final look now covers every run
        return list(source)
    look, taken = f"{_PREFIX}look-{number}", list(source)
    if kind == "MASK":
        if not (graph.knows(_TO_IMAGE) and graph.knows(_TO_MASK)):
            raise CannotGuard("it delivers a mask, which cannot be looked at without ComfyUI's own nodes for masks")
        graph.insert(f"{_PREFIX}image-{number}", _TO_IMAGE, {"mask": taken})
        taken = [f"{_PREFIX}image-{number}", 0]
    graph.insert(look, LOOK, {"images": taken, "guards": ",".join(ids)})
    if kind == "MASK":
        graph.insert(f"{_PREFIX}mask-{number}", _TO_MASK, {"image": [look, 0], "channel": "red"})
        return [f"{_PREFIX}mask-{number}", 0]
    return [look, 0]


def _is_looked_at(graph: Graph, name: str) -> bool:
    """Return whether a node makes a video from pictures or videos of the workflow, which are looked at."""
    return any(graph.carries(source, name, key) in {"IMAGE", "VIDEO"} for key, source in graph.links(name))


def _called(kind: str) -> str:
    return {"LATENT": "latents", "VIDEO": "a video from elsewhere"}.get(kind, f"something of the type {kind}")


def _guard(graph: Graph, source: tuple[str, int], number: int) -> str:
    name = f"dnp-guard-{number}"
    nearest = {kind: _nearest(graph, source, kind) for kind in ("CLIP", "VAE")}
    if nearest["CLIP"] is None:
        raise CannotGuard("the workflow has a model and no text encoder to steer it with")
    inputs = {"model": list(source), "clip": nearest["CLIP"], "policy": "", "mode": "auto", "vlm": "", "service": ""}
    graph.insert(name, GUARD, inputs | ({"vae": nearest["VAE"]} if nearest["VAE"] else {}))
    return name


def _nearest(graph: Graph, model: tuple[str, int], kind: str) -> list[Any] | None:
    """Return the output of a type that is nearest upstream of the nodes that use a model.

    Without one upstream, return any such output of the workflow, and None if there is none. Outputs that depend on the
    model itself are passed over.
    """
    users = graph.users_of(model)
    downstream = {name for name in graph.nodes if model[0] in graph.upstream([name])} - {model[0]}
    for name in (*graph.upstream(users), *graph.nodes):
        for _, source in graph.links(name):
            if graph.kind(source) == kind and source[0] not in downstream:
                return list(source)
    return None


def handled(document: dict[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with its workflow guarded, or with a workflow that ComfyUI refuses if that fails. Never raise.

    Args:
        document: the body of the request that queues a workflow.
        classes: the classes of all node types that ComfyUI knows, by name.
    """
    if "prompt" not in document:
        return document
    try:
        extra = document.get("extra_data") or {}
        metadata = {**(extra.get("extra_pnginfo") or {}), AS_QUEUED: document["prompt"]}
        rewritten = {"prompt": guarded(document["prompt"], classes), "extra_data": {**extra, "extra_pnginfo": metadata}}
    except Exception as error:
        reason = str(error) if isinstance(error, CannotGuard) else "it cannot be read"
        log.exception("DNP Guard refuses a workflow: %s", reason)
        refused = {"class_type": REFUSED, "inputs": {"reason": f"DNP Guard refuses this workflow: {reason}."}}
        rewritten = {"prompt": {f"{_PREFIX}refused": refused}}
    return {**document, **rewritten}


def register() -> bool:
    """Guard every workflow from now on, if the setting ``enforce`` says so; return whether it does.

    Unreadable settings enforce too: every workflow is refused until they are corrected.
    """
    try:
        enforced = load().enforce == "server"
    except Exception:
        log.exception("DNP Guard: its settings cannot be used, so every workflow is refused")
        enforced = True
    if not enforced:
        return False
    import nodes  # noqa: PLC0415 (a part of ComfyUI)
    from server import PromptServer  # noqa: PLC0415

    PromptServer.instance.add_on_prompt_handler(lambda document: handled(document, nodes.NODE_CLASS_MAPPINGS))
    return True
