"""Check a running AUTOMATIC1111 web UI, Forge or reForge over its HTTP API, with a guard service of scripted answers.

Stop the operator's own service first: the checks start a service at the address that the extension expects, and stop
it to check how the extension behaves without one. To compare with unguarded images, run the checks twice with
``--plain FILE``: first without the extension, which writes the hashes of the images to the file, then with it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.hosts.host_check import Found, is_withheld
from tests.hosts.scripted_service import serving

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

CLEAN, SEEN = [{"star": 0.0}], [{"star": 0.9}]
SEEN_UNTIL_THE_END = [{"star": 0.9}] * 4 + CLEAN
REPLACE = {"guidance": {"mode": "replace", "hold": 0}}
PROMPT = {"prompt": "a red star and a blue circle at night", "seed": 7, "cfg_scale": 5.0}
_TIMEOUT_S = 3600
_WITHOUT_STEPS = ("DPM fast", "DPM adaptive")
"""Samplers that choose their own steps: looks are due by progress, and a single step may pass several due points."""

_HIRES = {"enable_hr": True, "denoising_strength": 0.6, "hr_additional_modules": ["Use same choices"]}
"""The API's arguments for a hires fix; Forge needs the last one, and other hosts ignore it."""


@dataclass(frozen=True)
class Made:
    """The images that the host returned for one request.

    Attributes:
        hashes: hash of the pixels per image.
        blank: per image, whether it is the placeholder of a withheld one.
        texts: generation parameters per image, as the host saves them.
        first: the first image's file, in base64.
    """

    hashes: tuple[str, ...]
    blank: tuple[bool, ...]
    texts: tuple[str, ...]
    first: str

    def says(self, words: str) -> bool:
        """Return whether the generation parameters of every image contain these words."""
        return all(words in text for text in self.texts)

    def names(self, request: str) -> bool:
        """Return whether the generation parameters of any image contain this id of a record."""
        return any(request in text for text in self.texts)


class Host:
    """A client of a running host's HTTP API.

    Args:
        url: address of the host.
        size: width and height of the images, in pixels.
        steps: number of sampler steps.
    """

    def __init__(self, url: str, *, size: int, steps: int) -> None:
        self._url = url
        self._asked = {**PROMPT, "width": size, "height": size, "steps": steps}

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=60) as answer:  # noqa: S310 (the operator's)
            return json.load(answer)

    def post(self, path: str, values: dict[str, Any]) -> Any:
        body, headers = json.dumps(values).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, body, headers)  # noqa: S310 (as above)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 (as above)
            return json.load(answer)

    def settings(self) -> dict[str, Any]:
        """Return the extension's settings that the host's API shows."""
        return {name: value for name, value in self.get("/sdapi/v1/options").items() if name.startswith("dnp_guard_")}

    def make(self, what: str = "txt2img", **asked: Any) -> Made:
        document = self.post(f"/sdapi/v1/{what}", {**self._asked, **asked})
        count = asked.get("batch_size", 1) * asked.get("n_iter", 1)
        files = document["images"][-count:]  # a grid, if the host makes one, comes first
        pictures = [Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB") for encoded in files]
        hashes = tuple(hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures)
        blank = tuple(map(is_withheld, pictures))
        return Made(hashes, blank, tuple(json.loads(document["info"])["infotexts"][-count:]), files[0])


def ways(host: Host, samplers: list[str]) -> dict[str, dict[str, Any]]:
    """Return the API's arguments for every way to generate that is checked, by name.

    These are all samplers, batches, a hires fix, a guidance scale of 1, and image to image.
    """
    start = {"prompt": "a green ring on the beach", "seed": 1, "steps": 4, "cfg_scale": 5.0}
    return {
        **{f"sampler {name}": {"sampler_name": name} for name in samplers},
        "batch of two, twice": {"batch_size": 2, "n_iter": 2},
        "hires fix": _HIRES,
        "guidance scale 1": {"cfg_scale": 1.0},
        "img2img": {"what": "img2img", "start": start, "denoising_strength": 0.7},
    }


def check(url: str, arguments: argparse.Namespace) -> Iterator[Found]:
    """Run all checks, and yield their results."""
    host = Host(url, size=arguments.size, steps=arguments.steps)
    listed = [name.lower() for name in host.get("/sdapi/v1/scripts")["txt2img"]]
    samplers = [sampler["name"] for sampler in host.get("/sdapi/v1/samplers")]
    if "dnp guard" not in listed:
        yield from _record(host, samplers, arguments)
        return
    plain = json.loads(arguments.plain.read_text()) if arguments.plain and arguments.plain.exists() else {}
    with serving(arguments.service, CLEAN) as records:
        for way, asked in ways(host, samplers).items():
            first = _made(host, asked)
            looks = sum("step" in record and first.names(record["request"]) for record in records("query"))
            again = _made(host, asked)
            yield Found(f"{way}: says clean", first.says("DNP Guard: clean"), first.texts[0][-200:])
            yield Found(f"{way}: the same twice", first.hashes == again.hashes)
            same = first.hashes == tuple(plain[way]) if way in plain else None
            yield Found(f"{way}: observed equals plain", same, "" if way in plain else "no plain hashes")
            batches = asked.get("n_iter", 1) * asked.get("batch_size", 1)
            few = 1 if any(name in way for name in _WITHOUT_STEPS) else 4
            yield Found(f"{way}: looks", few * batches <= looks <= 4 * batches, f"{looks} of {4 * batches}")
        clean = host.make()
    yield from _steered(host, clean, arguments.service)
    yield from _withheld(host, clean, arguments.service)


def _record(host: Host, samplers: list[str], arguments: argparse.Namespace) -> Iterator[Found]:
    if arguments.plain is None:
        yield Found("the extension is installed", ok=False, detail="the host does not list DNP Guard")
        return
    hashes = {way: _made(host, asked).hashes for way, asked in ways(host, samplers).items()}
    arguments.plain.write_text(json.dumps(hashes, indent=2))
    yield Found("plain images", None, f"the extension is not there; their hashes are in {arguments.plain}")


def _steered(host: Host, clean: Made, service: str) -> Iterator[Found]:
    for mode, changes in (("separate", {}), ("replace", REPLACE)):
        with serving(service, SEEN_UNTIL_THE_END, **changes) as records:
            steered = host.make()
            yield Found(f"{mode}: differs", steered.hashes != clean.hashes)
            yield Found(f"{mode}: says steered", steered.says("DNP Guard: steered star@"), steered.texts[0][-200:])
            injected = records("negative.injected")
            yield Found(f"{mode}: recorded", len(injected) == 1, f"{len(injected)} negative.injected")
            named = bool(injected) and steered.says(injected[0]["request"])
            yield Found(f"{mode}: the infotext names the request", named)
        with serving(service, SEEN_UNTIL_THE_END, **changes):
            yield Found(f"{mode}: the same again", host.make().hashes == steered.hashes)
    with serving(service, SEEN_UNTIL_THE_END, **REPLACE) as records:
        host.make(cfg_scale=1.0)
        effective = [record["negative"]["effective"] for record in records("negative.injected")]
        yield Found("replace at guidance scale 1: recorded as not effective", effective == [False], str(effective))


def _withheld(host: Host, clean: Made, service: str) -> Iterator[Found]:
    settings = {"dnp_guard_url": "http://127.0.0.1:9", "dnp_guard_on_failure": "open"}
    loose = {"alwayson_scripts": {"DNP Guard": {"args": [False, ""]}}, "override_settings": settings}
    before = host.settings()
    shown = before["dnp_guard_url"].rstrip("/") == service.rstrip("/") if before else None
    yield Found("the settings show the service in force", shown, str(before))
    host.post("/sdapi/v1/options", settings)
    # Forge shows no settings; if they had changed, the next checks would not reach the service.
    same = host.settings() == before if before else None
    yield Found("a program does not change the settings", same, str(host.settings()))
    for name, asked in (("block", {}), ("a request that wants less", loose), ("hires fix", _HIRES)):
        with serving(service, SEEN):
            blocked = host.make(**asked, batch_size=2)
            yield Found(f"{name}: nothing is delivered", all(blocked.blank) and blocked.says("DNP Guard: blocked"))
    with serving(service, CLEAN):
        yield Found("nothing of it is left in the next job", host.make().hashes == clean.hashes)
    down = host.make(**loose)
    yield Found(
        "service down: nothing is delivered", all(down.blank) and down.says("failed_closed"), down.texts[0][-200:]
    )
    with serving(service, CLEAN):
        yield Found("service back: all is as before", host.make().hashes == clean.hashes)


def _made(host: Host, asked: dict[str, Any]) -> Made:
    rest = dict(asked)
    what, start = rest.pop("what", "txt2img"), rest.pop("start", None)
    if start is not None:
        rest["init_images"] = [host.make(**start).first]
    return host.make(what, **rest)
