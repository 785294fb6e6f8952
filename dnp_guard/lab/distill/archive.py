"""Save latents beside an audit log, and read both back as training examples of a latent probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file

from dnp_guard.audit.read.lines import read_lines
from dnp_guard.errors import DnpGuardError
from dnp_guard.hookspecs import hookimpl
from dnp_guard.lab.distill.examples import Example, refuse_sensitive, spatial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.policy import Policy
    from dnp_guard.types import Step


class Latents:
    """Plugin that saves the latents of every queried preview: ``Guard(…, plugins=[Latents(folder, policy)])``.

    Latents decode to the picture, so protect the folder as you would protect the pictures.

    Args:
        folder: folder that gets one file per request; created if it does not exist.
        policy: policy that the guard enforces.

    Raises:
        DnpGuardError: if the policy has a sensitive category, about which nothing may be kept.
    """

    def __init__(self, folder: Path | str, policy: Policy) -> None:
        refuse_sensitive(policy)
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    @hookimpl
    def dnp_guard_before_query(self, request: str, step: Step | None, images: Sequence[Image]) -> None:
        """Save the latents of the images that the guard is about to query."""
        if step is not None:
            file = self._folder / f"{request}.safetensors"
            # Earlier steps are read from the file, because generations on several threads may take turns.
            earlier = load(file.read_bytes()) if file.exists() else {}
            save_file({**earlier, str(step.index): spatial(step.prediction)}, file)


def read(log: Path, folder: Path, policy: Policy) -> tuple[list[Example], tuple[str, str]]:
    """Read the looks of an audit log whose latents were saved; a look is an answered query about one image.

    Args:
        log: path of the audit log.
        folder: folder that :class:`Latents` wrote.
        policy: policy under which the log was written.

    Returns:
        One example per look, and the name and revision of the model that answered.

    Raises:
        DnpGuardError: if the policy has a sensitive category, if no record of the log has both this policy and its
            latents, or if several models answered.
    """
    refuse_sensitive(policy)
    looks: list[Example] = []
    vlms: set[tuple[str, str]] = set()
    names = frozenset(category.id for category in policy.categories)
    for record in _queries(log, policy):
        latents = _latents(folder / f"{record['request']}.safetensors", record["step"], record["image"])
        if latents is None or not record.get("steps") or record.get("asked") is not None:
            continue  # a query about some of the categories does not say that the others were absent
        categories = frozenset(finding["category"] for finding in record.get("findings", ())) & names
        looks.append(
            Example(latents, record["step"] / record["steps"], categories, f"{record['request']} {record['image']}")
        )
        vlms.add((record["vlm"]["name"], record["vlm"]["revision"]))
    if len(vlms) != 1:
        reason = (
            "looks of several models"
            if vlms
            else f"no looks of policy {policy.name!r}, as it stands now, that have latents"
        )
        raise DnpGuardError(
            f"{log} and {folder} hold {reason}",
            hint="Give the log and the folder of a guard with the plugin dnp_guard.lab.distill.archive.Latents.",
        )
    return looks, vlms.pop()


def _queries(log: Path, policy: Policy) -> list[dict[str, Any]]:
    """Return the answered queries under a policy from a log, except those with a finding that the policy excused."""
    queries: dict[tuple[str, int, int], dict[str, Any]] = {}
    for line in read_lines(log):
        try:
            record = json.loads(line.data)
        except ValueError:
            continue  # `dnp-guard audit verify` reports the broken line
        if not isinstance(record, dict) or record.get("step") is None:
            continue
        place = (str(record.get("request")), int(record.get("image", 0)), int(record["step"]))
        if record.get("event") == "query" and record.get("policy", {}).get("digest") == policy.digest:
            queries[place] = record
        elif record.get("event") == "finding.waived":
            queries.pop(place, None)
    return list(queries.values())


def _latents(file: Path, step: int, image: int) -> Tensor | None:
    """Return the latents of one image at one step, [C, h, w]; None if the file does not hold them."""
    try:
        with safe_open(file, framework="pt") as saved:
            batch: Tensor = saved.get_tensor(str(step))
    except (OSError, SafetensorError):
        return None
    return batch[image] if image < len(batch) else None
