"""Define the nodes: *DNP Guard* guards a model, *Final Look* checks images, *Guard Report* sums up the guarded runs."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host, pictures
from .counts import COUNTS
from .guarding import Guarding, batch_for, in_force
from .report import sheet, summary
from .runs import RUNS, made_of
from .settings import chosen, load

if TYPE_CHECKING:
    from PIL import Image

_MODES = ["auto", "in process", "service"]
_TEXT = ("STRING", {"default": "", "multiline": False})
_COLOURS = 3
METADATA = "dnp_guard"
"""Key of a picture's metadata that holds the outcome and the record's id per *Final Look* node and image."""

_STRICTEST = ("pass", "blur", "block")
_MILDEST_FIRST = ("failed_open", "unasked", "clean", "monitored", "steered", "blurred", "blocked", "failed_closed")


class DNPGuard:
    """The node *DNP Guard*: it outputs a model whose sampler runs are guarded, whatever node samples with it."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Looks at images while they are denoised, and steers them away from content that the policy forbids."
    RETURN_TYPES = ("MODEL", "DNP_GUARD")
    RETURN_NAMES = ("model", "guard")
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the node's inputs; ``mode``, ``vlm`` and ``service`` are ignored if the operator has locked them."""
        return {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP", {"tooltip": "Encodes the texts that images are steered away from."}),
                "policy": (
                    *_TEXT[:1],
                    {**_TEXT[1], "tooltip": "A policy; the operator's, if there is one, applies as well."},
                ),
                "mode": (_MODES, {"tooltip": "auto: in process if there is a backend, otherwise through the service."}),
                "vlm": (*_TEXT[:1], {**_TEXT[1], "tooltip": "In process: transformers:MODEL, openai:MODEL@URL …"}),
                "service": (*_TEXT[:1], {**_TEXT[1], "tooltip": "Address of dnp-guard serve."}),
            },
            "optional": {"vae": ("VAE", {"tooltip": "Decodes previews; without it they are small and coarse."})},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, policy: str = "", mode: str = "auto", vlm: str = "", service: str = "", **_: Any) -> Any:  # noqa: N802
        """Return a fingerprint of settings, policy and model, so that ComfyUI reuses no image that others judged."""
        if policy is None:  # the policy comes from another node, and its name is not known yet
            return float("nan")
        settings = chosen(load(), vlm=vlm, service=service, mode=mode)
        named = [name for name in (settings.policy, policy) if name]
        if settings.vlm:
            contents = [path.read_bytes() if (path := Path(name)).is_file() else b"" for name in named]
        elif judges := in_force(settings, policy):
            contents = [judges.encode()]
        else:
            return float("nan")  # the service may have another policy by now
        failures = COUNTS["failed_closed"] + COUNTS["failed_open"]  # after a failure, generate the image again
        return sha256(b"\0".join([repr((settings, named, failures)).encode(), *contents])).hexdigest()

    def patch(
        self,
        model: Any,
        clip: Any,
        policy: str = "",
        mode: str = "auto",
        vlm: str = "",
        service: str = "",
        vae: Any = None,
        unique_id: str = "",
    ) -> tuple[Any, str]:
        """Return a guarded clone of a model, and the id of this node for *Final Look* and *Guard Report*."""
        settings = chosen(load(), vlm=vlm, service=service, mode=mode)
        return Guarding(settings, policy, clip, vae, str(unique_id)).patched(model), str(unique_id)


class FinalLook:
    """The node *Final Look*: it outputs finished images unchanged, blurred or blank, as the policy decides."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Looks at finished images, and blurs or blanks those that the policy does not let pass."
    RETURN_TYPES = ("IMAGE", "STRING", "BOOLEAN", "STRING")
    RETURN_NAMES = ("images", "report", "withheld", "code")
    FUNCTION = "look"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the node's inputs: the images, and the guard of the model that generated them."""
        return {
            "required": {"images": ("IMAGE",)},
            "optional": {
                "guard": ("DNP_GUARD",),
                "guards": ("STRING", {"default": "", "tooltip": "Ids of more DNP Guard nodes, separated by commas."}),
                "policy": (*_TEXT[:1], {**_TEXT[1], "tooltip": "As at DNP Guard; for images of unguarded models."}),
            },
            "hidden": {"unique_id": "UNIQUE_ID", "graph": "DYNPROMPT", "metadata": "EXTRA_PNGINFO"},
        }

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> Any:  # noqa: N802 (ComfyUI's name)
        """Return a fingerprint of settings, policy and model; see :meth:`DNPGuard.IS_CHANGED`."""
        return DNPGuard.IS_CHANGED(policy=inputs.get("policy", ""))

    def look(
        self,
        images: Any,
        guard: str = "",
        guards: str = "",
        policy: str = "",
        unique_id: str = "",
        graph: Any = None,
        metadata: Any = None,
    ) -> tuple[Any, str, bool, str]:
        """Make the final look at images, and blur or blank those that may not pass.

        Returns:
            The images, a report with one line per image, whether any image is blocked, and the strictest outcome.
        """
        nodes = [node for node in (guard, *guards.split(",")) if node]
        if images.shape[-1] > _COLOURS:
            images = images[..., :_COLOURS]  # transparency is not judged, and could show something else
        shown = host.pictures(images)
        _, item = host.executing() or ("", 0)
        runs = RUNS.settle(nodes, shown, made_of(graph, str(unique_id), "images"), item)
        settings, guards_own = RUNS.made_with(nodes) or (load(), "")
        batches = [run.batch for run in runs]
        if not runs or any(run.shows_other(shown) for run in runs):
            batches.append(_looked_at(settings, policy or guards_own, shown))
        actions = [max((batch.action(index) for batch in batches), key=_STRICTEST.index) for index in range(len(shown))]
        lines = [f"image {index}: {batch.line(index)}" for index in range(len(shown)) for batch in batches]
        strictest = [max(batches, key=lambda batch: _rank(batch, index)) for index in range(len(shown))]
        decisions = [batch.decision(index) for index, batch in enumerate(strictest)]
        COUNTS.update(decisions)
        if isinstance(metadata, dict):  # nodes that save pictures write the metadata into the files
            rows = metadata.setdefault(METADATA, {}).setdefault(str(unique_id), [])
            rows += [{"outcome": word, "request": batch.request} for word, batch in zip(decisions, strictest)]
        words = [batch.words(index) for index, batch in enumerate(strictest)]
        acted = [pictures.acted(*parts) for parts in zip(shown, actions, words)]
        for run in runs:
            run.delivered = acted
        delivered = images if all(action == "pass" for action in actions) else images.clone()
        for index, action in enumerate(actions):
            if action != "pass":
                delivered[index, ..., :3] = host.tensor(acted[index]).to(images)
        return (
            delivered,
            "\n".join(lines),
            "block" in actions,
            max(decisions, key=_MILDEST_FIRST.index, default="clean"),
        )


class GuardReport:
    """The node *Guard Report*: it shows the guard's work as text and as a sheet of pictures."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Shows the findings of every step, the negatives, and the outcomes of the images."
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("text", "timeline")
    FUNCTION = "report"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the node's inputs; ``images`` only makes the report run after the images' final look."""
        return {"required": {"guard": ("DNP_GUARD",), "images": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802 (ComfyUI's name)
        """Return a value that never equals itself, so that ComfyUI makes the report anew every time."""
        return float("nan")

    def report(self, guard: str, images: Any) -> dict[str, Any]:
        """Report on the runs of the latest workflow that the *DNP Guard* node with the id ``guard`` guarded."""
        runs = RUNS.latest(guard)
        text, timeline = summary(runs), sheet(runs)
        shown = {"text": [text], "images": host.shown(timeline)}
        return {"ui": shown, "result": (text, host.tensor(timeline)[None])}


class Refused:
    """A node that replaces a workflow that cannot be guarded; it fails ComfyUI's validation with the reason."""

    CATEGORY = "DNP Guard"
    DEPRECATED = True  # nobody should put it into a workflow
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "refuse"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the node's only input, the reason."""
        return {"required": {"reason": ("STRING", {"default": ""})}}

    @classmethod
    def VALIDATE_INPUTS(cls, reason: str) -> str:  # noqa: N802 (ComfyUI's name)
        """Return the reason, which ComfyUI reports to the client as a validation error."""
        return reason

    def refuse(self, reason: str) -> tuple[()]:
        """Raise the reason as an error, if ComfyUI runs the node without validation."""
        raise RuntimeError(reason)


def _rank(batch: Any, index: int) -> int:
    """Return the rank of the outcome that a batch gives an image, from mildest to strictest."""
    return _MILDEST_FIRST.index(batch.decision(index))


def _looked_at(settings: Any, policy: str, shown: list[Image.Image]) -> Any:
    """Judge images that no guarded run generated, and return the batch with their outcomes."""
    batch = batch_for(settings, policy, [""] * len(shown), {"host": host_of("FinalLook"), "run": {}})
    try:
        batch.open(None)
    except Exception as error:  # noqa: BLE001 (the images are withheld)
        batch.failure = str(error)
        return batch
    if batch.owes_a_look():
        batch.look(0, 1.0, None, shown, effective=False)
    batch.settle(shown)
    return batch


def host_of(target: str) -> dict[str, str]:
    """Return the fields of ``host`` in the audit record: ``name``, ``version`` and ``target``."""
    return {"name": "comfyui", "version": host.version(), "target": target}


NODE_CLASS_MAPPINGS = {
    "DNPGuard": DNPGuard,
    "DNPGuardFinalLook": FinalLook,
    "DNPGuardReport": GuardReport,
    "DNPGuardRefused": Refused,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DNPGuard": "DNP Guard",
    "DNPGuardFinalLook": "Final Look",
    "DNPGuardReport": "Guard Report",
    "DNPGuardRefused": "(refused by DNP Guard)",
}
