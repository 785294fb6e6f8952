"""The nodes: DNP Guard patches a model, Final Look looks at images, Guard Report says what happened."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host, pictures
from .counts import COUNTS
from .guarding import Guarding, batch_for, in_force
from .report import sheet, told
from .runs import RUNS, made_of
from .settings import chosen, load

if TYPE_CHECKING:
    from PIL import Image

_MODES = ["auto", "in process", "service"]
_TEXT = ("STRING", {"default": "", "multiline": False})
_COLOURS = 3
METADATA = "dnp_guard"
"""Key of a picture's metadata that says, by *Final Look* and image by image, the outcome and the request."""

_STRICTEST = ("pass", "blur", "block")
_MILDEST_FIRST = ("failed_open", "unasked", "clean", "monitored", "steered", "blurred", "blocked", "failed_closed")


class DNPGuard:
    """A model that is looked at, and steered, whatever samples with it."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Looks at the image while it is denoised, and steers away from what the policy forbids."
    RETURN_TYPES = ("MODEL", "DNP_GUARD")
    RETURN_NAMES = ("model", "guard")
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What goes in. ``vlm`` and ``service`` are ignored where the operator has locked them."""
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
        """A fingerprint of what an image is judged by: a cached image was judged by something else otherwise."""
        if policy is None:  # it comes from another node, and its name is not known yet
            return float("nan")
        settings = chosen(load(), vlm=vlm, service=service, mode=mode)
        named = [name for name in (settings.policy, policy) if name]
        if settings.vlm:
            told = [path.read_bytes() if (path := Path(name)).is_file() else b"" for name in named]
        elif judges := in_force(settings, policy):
            told = [judges.encode()]
        else:
            return float("nan")  # the service may have another policy by now
        failures = COUNTS["failed_closed"] + COUNTS["failed_open"]  # an image of one is to be drawn again
        return sha256(b"\0".join([repr((settings, named, failures)).encode(), *told])).hexdigest()

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
    """Images as the policy lets them pass: as they are, blurred or blank."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "Looks at finished images; what the policy does not let pass is blurred or blank."
    RETURN_TYPES = ("IMAGE", "STRING", "BOOLEAN", "STRING")
    RETURN_NAMES = ("images", "report", "withheld", "code")
    FUNCTION = "look"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What goes in: images, and the guard of the model that drew them."""
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
        """As the policy, where no guard in the workflow tells."""
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
        """Look, and withhold what may not pass.

        Returns:
            The images, the report, whether any image is withheld, and the strictest outcome among them.
        """
        nodes = [node for node in (guard, *guards.split(",")) if node]
        if images.shape[-1] > _COLOURS:
            images = images[..., :_COLOURS]  # transparency is not judged, and would show something else
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
        acted = [pictures.acted(*told) for told in zip(shown, actions, words)]
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
    """What the guard saw and did, as text and as a strip of pictures."""

    CATEGORY = "DNP Guard"
    DESCRIPTION = "What was seen at which step, what was steered away from, and what became of the images."
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("text", "timeline")
    FUNCTION = "report"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What goes in; the images only so that the report comes after the final look at them."""
        return {"required": {"guard": ("DNP_GUARD",), "images": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802 (ComfyUI's name)
        """Always: it tells of the latest run."""
        return float("nan")

    def report(self, guard: str, images: Any) -> dict[str, Any]:
        """Tell."""
        runs = RUNS.latest(guard)
        text, timeline = told(runs), sheet(runs)
        shown = {"text": [text], "images": host.shown(timeline)}
        return {"ui": shown, "result": (text, host.tensor(timeline)[None])}


class Refused:
    """Stands in for a workflow that cannot be guarded: the host's own validation refuses it, with the reason."""

    CATEGORY = "DNP Guard"
    DEPRECATED = True  # nobody is to put it into a workflow
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "refuse"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """The reason."""
        return {"required": {"reason": ("STRING", {"default": ""})}}

    @classmethod
    def VALIDATE_INPUTS(cls, reason: str) -> str:  # noqa: N802 (ComfyUI's name)
        """Refuse, in the words that the client is told."""
        return reason

    def refuse(self, reason: str) -> tuple[()]:
        """Refuse, where the host does not validate."""
        raise RuntimeError(reason)


def _rank(batch: Any, index: int) -> int:
    """How strict a batch is about an image."""
    return _MILDEST_FIRST.index(batch.decision(index))


def _looked_at(settings: Any, policy: str, shown: list[Image.Image]) -> Any:
    """The final look at images that no guarded run drew: one look, and nothing that could be steered."""
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
    """``host{name, version, target}`` of the record."""
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
