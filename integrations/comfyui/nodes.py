"""The nodes: DNP Guard patches a model, Final Look looks at images, Guard Report sums up the runs."""

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
"""Key of a picture's metadata that holds outcome and request per *Final Look* and image."""

_STRICTEST = ("pass", "blur", "block")
_MILDEST_FIRST = ("failed_open", "unasked", "clean", "monitored", "steered", "blurred", "blocked", "failed_closed")


class DNPGuard:
    """A model whose runs are looked at and steered, whatever samples with it."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Looks at the image while it is denoised, and steers away from what the policy forbids."
    RETURN_TYPES = ("MODEL", "DNP_GUARD")
    RETURN_NAMES = ("model", "guard")
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the inputs; ``vlm`` and ``service`` are ignored if the operator has locked them."""
        return {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP", {"tooltip": "Encodes what is steered away from."}),
                "policy": (
                    *_TEXT[:1],
                    {**_TEXT[1], "tooltip": "A policy; beside the operator's, one to be stricter by."},
                ),
                "mode": (_MODES, {"tooltip": "auto: in process where there is a backend, else through the service."}),
                "vlm": (*_TEXT[:1], {**_TEXT[1], "tooltip": "In process: transformers:MODEL, openai:MODEL@URL …"}),
                "service": (*_TEXT[:1], {**_TEXT[1], "tooltip": "Address of dnp-guard serve."}),
            },
            "optional": {"vae": ("VAE", {"tooltip": "Decodes the looks; without it they are small and coarse."})},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, policy: str = "", mode: str = "auto", vlm: str = "", service: str = "", **_: Any) -> Any:  # noqa: N802
        """Return a fingerprint of the judge of an image, so that another judge does not deliver a cached image."""
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
        failures = COUNTS["failed_closed"] + COUNTS["failed_open"]  # after a failure an image is drawn again
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
        """Guard every run of a model."""
        settings = chosen(load(), vlm=vlm, service=service, mode=mode)
        return Guarding(settings, policy, clip, vae, str(unique_id)).patched(model), str(unique_id)


class FinalLook:
    """The images that the policy lets pass: unchanged, blurred or blank."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Looks at finished images; what the policy does not let pass is blurred or blank."
    RETURN_TYPES = ("IMAGE", "STRING", "BOOLEAN", "STRING")
    RETURN_NAMES = ("images", "report", "withheld", "code")
    FUNCTION = "look"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the inputs: images, and the guard of the model that drew them."""
        return {
            "required": {"images": ("IMAGE",)},
            "optional": {
                "guard": ("DNP_GUARD",),
                "guards": ("STRING", {"default": "", "tooltip": "Ids of further DNP Guard nodes, with commas."}),
                "policy": (*_TEXT[:1], {**_TEXT[1], "tooltip": "As at DNP Guard; for images that no guard drew."}),
            },
            "hidden": {"unique_id": "UNIQUE_ID", "graph": "DYNPROMPT", "metadata": "EXTRA_PNGINFO"},
        }

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> Any:  # noqa: N802 (ComfyUI's name)
        """Return the policy's fingerprint, for images without a guard in the workflow."""
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
        """Look at images, and withhold those that may not pass.

        Returns:
            The images, the report, whether any image is withheld, and the strictest outcome among them.
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
        if isinstance(metadata, dict):  # the nodes that save pictures write it into them
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
    """The findings and actions of the guard, as text and as a strip of pictures."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Shows the findings of every step, the negatives, and the outcomes of the images."
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("text", "timeline")
    FUNCTION = "report"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the inputs; the images only make the report come after their final look."""
        return {"required": {"guard": ("DNP_GUARD",), "images": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802 (ComfyUI's name)
        """Return a new fingerprint, because the report is about the latest run."""
        return float("nan")

    def report(self, guard: str, images: Any) -> dict[str, Any]:
        """Report on the latest runs."""
        runs = RUNS.latest(guard)
        text, timeline = summary(runs), sheet(runs)
        shown = {"text": [text], "images": host.shown(timeline)}
        return {"ui": shown, "result": (text, host.tensor(timeline)[None])}


class Refused:
    """A node in place of a workflow that cannot be guarded; the host's own validation refuses it, with the reason."""

    CATEGORY = "DNP Guard"
    DEPRECATED = True  # nobody should put it into a workflow
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "refuse"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return the input, which is the reason."""
        return {"required": {"reason": ("STRING", {"default": ""})}}

    @classmethod
    def VALIDATE_INPUTS(cls, reason: str) -> str:  # noqa: N802 (ComfyUI's name)
        """Refuse with the reason for the client."""
        return reason

    def refuse(self, reason: str) -> tuple[()]:
        """Refuse if the host does not validate."""
        raise RuntimeError(reason)


def _rank(batch: Any, index: int) -> int:
    """Return how strict a batch is about an image."""
    return _MILDEST_FIRST.index(batch.decision(index))


def _looked_at(settings: Any, policy: str, shown: list[Image.Image]) -> Any:
    """Make the final look at images that no guarded run drew: one look, without steering."""
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
    """Return ``host{name, version, target}`` for the record."""
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
