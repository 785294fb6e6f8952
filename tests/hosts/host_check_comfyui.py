"""Check a running ComfyUI over its HTTP API, with a guard service of scripted answers.

Stop the operator's own service first: the checks start a service at the address that the nodes expect, and stop it to
check how the nodes behave without one. Unguarded images for comparison come from the same host, by workflows without
the nodes. If the host guards every workflow, there are none, and the checks that need them are skipped.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.hosts.host_check import Found, is_withheld
from tests.hosts.scripted_service import POLICY, serving

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Iterator

CLEAN, SEEN = [{"star": 0.0}], [{"star": 0.9}]
SEEN_UNTIL_THE_END = [{"star": 0.9}] * 4 + CLEAN
UNANSWERED = [{"error": "unavailable"}]
REPLACE = {"guidance": {"mode": "replace", "hold": 0}}
TOLERATED = {**POLICY["categories"][0], "still_present": "monitor"}
NODES = ("DNPGuard", "DNPGuardFinalLook", "DNPGuardReport")
_TIMEOUT_S = 3600
POLL_S = 0.2


@dataclass(frozen=True)
class Made:
    """The result of a workflow.

    Attributes:
        hashes: hash of the pixels per image.
        blank: per image, whether it is the placeholder of a withheld one.
        error: message of a failure; empty without one.
        metadata: per image, the guard's entry in the metadata of its file.
    """

    hashes: tuple[str, ...]
    blank: tuple[bool, ...]
    error: str = ""
    metadata: tuple[str, ...] = ()


class Host:
    """A client of a running ComfyUI's HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=60) as answer:  # noqa: S310 (the operator's)
            return json.load(answer)

    def post(self, path: str, document: dict[str, Any]) -> Any:
        body = json.dumps(document).encode()
        request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (the operator's)
            return json.loads(answer.read() or b"{}")

    def make(self, nodes: dict[str, Any]) -> Made:
        """Run a workflow, without cached results of earlier ones, and return its images."""
        self.post("/free", {"free_memory": True})
        try:
            extra = {"extra_pnginfo": {"workflow": {}}}
            document = {"prompt": nodes, "client_id": uuid.uuid4().hex, "extra_data": extra}
            name = self.post("/prompt", document)["prompt_id"]
        except urllib.error.HTTPError as error:
            return Made((), (), error.read().decode(errors="replace"))
        until = time.monotonic() + _TIMEOUT_S
        while name not in (history := self.get(f"/history/{name}")):
            if time.monotonic() > until:
                return Made((), (), "no answer")
            time.sleep(POLL_S)
        done = history[name]
        status = done.get("status", {})
        if status.get("status_str") == "error":
            return Made((), (), json.dumps(status.get("messages", "")))
        files = [image for output in done["outputs"].values() for image in output.get("images", ())]
        pictures = [self._picture(file) for file in files]
        hashes = tuple(hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures)
        metadata = tuple(str(picture.info.get("dnp_guard", "")) for picture in pictures)
        return Made(hashes, tuple(map(is_withheld, pictures)), metadata=metadata)

    def _picture(self, file: dict[str, str]) -> Image.Image:
        query = urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
        with urllib.request.urlopen(f"{self._url}/view?{query}", timeout=60) as answer:  # noqa: S310 (as above)
            picture = Image.open(io.BytesIO(answer.read()))
        shown = picture.convert("RGB")
        shown.info = picture.info
        return shown


def workflow(checkpoint: str, *, size: int, steps: int, sampler: str, batch: int = 1, cfg: float = 5.0) -> dict:
    """Return a text-to-image workflow without guard nodes."""
    drawn = {"seed": 7, "steps": steps, "cfg": cfg, "sampler_name": sampler, "scheduler": "normal", "denoise": 1.0}
    given = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    text = "a red star and a blue circle at night"
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": text}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": batch}},
        "5": {"class_type": "KSampler", "inputs": {**given, **drawn}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "dnp-guard-check"}},
    }


def second_pass(nodes: dict[str, Any]) -> dict[str, Any]:
    """Add a second sampling pass that starts from the picture, as in image to image."""
    nodes = copy.deepcopy(nodes)
    nodes["8"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["6", 0], "vae": ["1", 2]}}
    nodes["9"] = copy.deepcopy(nodes["5"])
    nodes["9"]["inputs"] |= {"latent_image": ["8", 0], "denoise": 0.6}
    nodes["10"] = {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0], "vae": ["1", 2]}}
    nodes["7"]["inputs"]["images"] = ["10", 0]
    return nodes


def masked(nodes: dict[str, Any]) -> dict[str, Any]:
    """Add a mask, so that the sampler draws only the right half of the picture."""
    nodes = copy.deepcopy(nodes)
    width, height = (nodes["4"]["inputs"][key] for key in ("width", "height"))
    untouched, drawn = ({"value": value, "height": height} for value in (0.0, 1.0))
    over = {"destination": ["11", 0], "source": ["12", 0], "x": width // 2, "y": 0, "operation": "add"}
    nodes["11"] = {"class_type": "SolidMask", "inputs": {**untouched, "width": width}}
    nodes["12"] = {"class_type": "SolidMask", "inputs": {**drawn, "width": width // 2}}
    nodes["13"] = {"class_type": "MaskComposite", "inputs": over}
    nodes["14"] = {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["4", 0], "mask": ["13", 0]}}
    nodes["5"]["inputs"]["latent_image"] = ["14", 0]
    return nodes


def two_samplers(nodes: dict[str, Any]) -> dict[str, Any]:
    """Add a second sampler that uses the same model, and saves a picture of its own."""
    nodes = copy.deepcopy(nodes)
    beside = {"5": "9", "6": "15", "7": "16"}
    nodes |= {other: copy.deepcopy(nodes[name]) for name, other in beside.items()}
    nodes["9"]["inputs"]["seed"] += 1
    nodes["15"]["inputs"]["samples"] = ["9", 0]
    nodes["16"]["inputs"]["images"] = ["15", 0]
    return nodes


def guarded(nodes: dict[str, Any]) -> dict[str, Any]:
    """Add a guard node after the model, and a final look before every node that saves a picture."""
    nodes = copy.deepcopy(nodes)
    chosen = {"policy": "", "mode": "auto", "vlm": "", "service": ""}
    links = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    nodes["guard"] = {"class_type": "DNPGuard", "inputs": {**links, **chosen}}
    for name in ("5", "9"):
        if name in nodes:
            nodes[name]["inputs"]["model"] = ["guard", 0]
    for name in ("7", "16"):
        if name in nodes:
            look = {"images": nodes[name]["inputs"]["images"], "guard": ["guard", 1]}
            nodes[f"look{name}"] = {"class_type": "DNPGuardFinalLook", "inputs": look}
            nodes[name]["inputs"]["images"] = [f"look{name}", 0]
    return nodes


def as_mask(nodes: dict[str, Any]) -> dict[str, Any]:
    """Change a workflow so that it delivers the picture as a mask, and not as an image."""
    nodes = copy.deepcopy(nodes)
    nodes["18"] = {"class_type": "ImageToMask", "inputs": {"image": ["6", 0], "channel": "red"}}
    nodes["7"] = {"class_type": "MaskPreview", "inputs": {"mask": ["18", 0]}}
    return nodes


def check(url: str, arguments: argparse.Namespace) -> Iterator[Found]:
    """Run all checks, and yield their results."""
    host = Host(url)
    known = host.get("/object_info")
    missing = [name for name in NODES if name not in known]
    yield Found("the nodes are installed", not missing, ", ".join(missing))
    if missing:
        return
    checkpoint = known["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0][0]
    samplers = known["KSampler"]["input"]["required"]["sampler_name"][0]

    def plain(**asked: Any) -> dict[str, Any]:
        return workflow(checkpoint, **{"size": arguments.size, "steps": arguments.steps, "sampler": "euler", **asked})

    ways = {f"sampler {name}": plain(sampler=name) for name in samplers}
    ways |= {"batch of three": plain(batch=3), "cfg 1": plain(cfg=1.0), "two passes": second_pass(plain())}
    ways |= {"masked": masked(plain()), "two samplers": two_samplers(plain())}
    enforces = bool(host.make(plain()).error)  # without a service only an unguarded workflow passes
    unsteered = {}
    with serving(arguments.service, CLEAN) as records:
        for way, nodes in ways.items():
            unsteered[way] = yield from _observed(host, way, nodes, records, enforces=enforces)
        before = len(records("request.started"))
        host.make(two_samplers(plain()) if enforces else guarded(two_samplers(plain())))
        asked = len(records("request.started")) - before
        yield Found("two samplers: each has its own final look", asked == 2, f"{asked} generations")
        before = len(records("query"))
        drawn = host.make(plain())
        looks = len(records("query")) - before
        yield Found("a plain workflow: looks", looks > 1 if enforces else None, drawn.error[-300:] or f"{looks} looks")
    with serving(arguments.service, SEEN, categories=[TOLERATED]):
        for way, nodes in ways.items():
            steered = host.make(guarded(nodes))
            differs = bool(steered.hashes) and not set(steered.hashes) & set(unsteered[way].hashes)
            yield Found(f"{way}: is steered", differs, steered.error[-300:])
    clean = Made((), ()) if enforces else host.make(plain())
    yield from _steered(host, plain(), clean, arguments.service)
    yield from _withheld(host, plain(batch=2), plain(), clean, arguments.service)
    if enforces and "MaskPreview" in known:
        with serving(arguments.service, SEEN):
            mask = host.make(as_mask(plain()))
            yield Found("a picture delivered as a mask: is withheld", not mask.hashes or all(mask.blank), mask.error)
    yield from _passed(host, plain() if enforces else guarded(plain()), clean, arguments.service)


def _observed(
    host: Host, way: str, nodes: dict[str, Any], records: Any, *, enforces: bool
) -> Generator[Found, None, Made]:
    before = len(records("query"))
    first = host.make(guarded(nodes))
    looks = len(records("query")) - before
    yield Found(f"{way}: is drawn", bool(first.hashes), first.error[-300:])
    yield Found(f"{way}: looks", looks > 1, f"{looks} looks")
    yield Found(f"{way}: the same twice", bool(first.hashes) and first.hashes == host.make(guarded(nodes)).hashes)
    same = None if enforces else first.hashes == host.make(nodes).hashes
    yield Found(f"{way}: observed equals plain", same, "every workflow is guarded here" if enforces else "")
    return first


def _steered(host: Host, nodes: dict[str, Any], clean: Made, service: str) -> Iterator[Found]:
    for mode, changes in (("separate", {}), ("replace", REPLACE)):
        with serving(service, SEEN_UNTIL_THE_END, **changes) as records:
            steered = host.make(guarded(nodes))
            yield Found(
                f"{mode}: differs", bool(steered.hashes) and steered.hashes != clean.hashes, steered.error[-300:]
            )
            injected = records("negative.injected")
            yield Found(f"{mode}: recorded", len(injected) == 1)
            named = bool(injected) and all(injected[0]["request"] in metadata for metadata in steered.metadata)
            yield Found(f"{mode}: the picture's file names the request", named, str(steered.metadata)[-200:])
        with serving(service, SEEN_UNTIL_THE_END, **changes):
            again = host.make(guarded(nodes)).hashes
            yield Found(f"{mode}: the same again", bool(again) and again == steered.hashes)
    without = copy.deepcopy(nodes)
    without["5"]["inputs"]["cfg"] = 1.0
    with serving(service, SEEN_UNTIL_THE_END, **REPLACE) as records:
        host.make(guarded(without))
        effective = [record["negative"]["effective"] for record in records("negative.injected")]
        yield Found("replace at cfg 1: recorded as not effective", effective == [False], str(effective))


def _withheld(host: Host, two: dict[str, Any], one: dict[str, Any], clean: Made, service: str) -> Iterator[Found]:
    with serving(service, SEEN):
        blocked = host.make(guarded(two))
        yield Found("block: nothing is delivered", len(blocked.blank) == 2 and all(blocked.blank), blocked.error[-300:])
    down = host.make(guarded(one))
    yield Found("service down: nothing is delivered", not down.hashes or all(down.blank), down.error[-300:])
    if clean.hashes:
        yield Found("nothing leaks into later plain runs", host.make(one).hashes == clean.hashes)


def _passed(host: Host, nodes: dict[str, Any], clean: Made, service: str) -> Iterator[Found]:
    before = host.get("/dnp-guard/status")["images"].get("failed_open", 0)
    with serving(service, UNANSWERED, on_failure="open") as records:
        passed = host.make(nodes)
        same = passed.hashes == clean.hashes if clean.hashes else None
        yield Found("no answer, open: equals plain", same, passed.error[-300:])
        decided = [record["decision"] for record in records("request.finished")]
        yield Found("no answer, open: recorded", decided == ["failed_open"], str(decided))
        counted = host.get("/dnp-guard/status")["images"].get("failed_open", 0) - before
        yield Found("no answer, open: counted", counted == 1, f"{counted} images")
