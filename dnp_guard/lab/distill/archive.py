"""Latents kept beside an audit log, and the looks that the two make together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file

from dnp_guard.audit.read.lines import read_lines
from dnp_guard.errors import DnpGuardError
from dnp_guard.hookspecs import hookimpl
from dnp_guard.lab.distill.looks import Example, refuse_sensitive, spatial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.policy import Policy
    from dnp_guard.types import Step


class Latents:
    """A plugin that keeps the latents of every look: ``Guard(…, plugins=[Latents(folder, policy)])``.

    The latents of a picture are the picture; keep the folder as you would keep that.

    Args:
        folder: gets one file a request.
        policy: that the guard enforces.

    Raises:
        DnpGuardError: the policy has a sensitive category, of which nothing may be kept.
    """

    def __init__(self, folder: Path | str, policy: Policy) -> None:
        refuse_sensitive(policy)
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    @hookimpl
    def dnp_guard_before_query(self, request: str, step: Step | None, images: Sequence[Image]) -> None:
        """Keep the latents of what is about to be asked about."""
        if step is not None:
            file = self._folder / f"{request}.safetensors"
            # From the file, not from memory: generations on several threads may take turns.
            kept = load(file.read_bytes()) if file.exists() else {}
            save_file({**kept, str(step.index): spatial(step.prediction)}, file)


def read(log: Path, folder: Path, policy: Policy) -> tuple[list[Example], tuple[str, str]]:
    """The looks of a log whose latents were kept.

    Args:
        log: the audit log.
        folder: what :class:`Latents` wrote.
        policy: under which the looks were made.

    Returns:
        The looks, and the name and the revision of the model that answered.

    Raises:
        DnpGuardError: the policy has a sensitive category, or nothing in the log fits the policy and the folder.
    """
    refuse_sensitive(policy)
    looks: list[Example] = []
    vlms: set[tuple[str, str]] = set()
    names = frozenset(category.id for category in policy.categories)
    for record in _queries(log, policy):
        latents = _latents(folder / f"{record['request']}.safetensors", record["step"], record["image"])
        if latents is None or not record.get("steps") or record.get("asked") is not None:
            continue  # of what a look did not ask about it does not say that nothing was there
        found = frozenset(finding["category"] for finding in record.get("findings", ())) & names
        looks.append(
            Example(latents, record["step"] / record["steps"], found, f"{record['request']} {record['image']}")
        )
        vlms.add((record["vlm"]["name"], record["vlm"]["revision"]))
    if len(vlms) != 1:
        told = (
            "looks of several models" if vlms else f"no looks of policy {policy.name!r} as it stands with their latents"
        )
        raise DnpGuardError(
            f"{log} and {folder} hold {told}",
            hint="Give the log and the folder of a guard that had the plugin dnp_guard.lab.distill.archive.Latents.",
        )
    return looks, vlms.pop()


def _queries(log: Path, policy: Policy) -> list[dict[str, Any]]:
    """The answered looks under a policy while images were made; those that excused something are left out."""
    queries: dict[tuple[str, int, int], dict[str, Any]] = {}
    for line in read_lines(log):
        try:
            record = json.loads(line.data)
        except ValueError:
            continue  # `dnp-guard audit verify` says what is wrong with it
        if not isinstance(record, dict) or record.get("step") is None:
            continue
        place = (str(record.get("request")), int(record.get("image", 0)), int(record["step"]))
        if record.get("event") == "query" and record.get("policy", {}).get("digest") == policy.digest:
            queries[place] = record
        elif record.get("event") == "finding.waived":
            queries.pop(place, None)
    return list(queries.values())


def _latents(file: Path, step: int, image: int) -> Tensor | None:
    try:
        with safe_open(file, framework="pt") as saved:
            kept: Tensor = saved.get_tensor(str(step))
    except (OSError, SafetensorError):
        return None
    return kept[image] if image < len(kept) else None
