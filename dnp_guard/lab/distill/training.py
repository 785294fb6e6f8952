"""Train a probe, and choose its thresholds on images that it has not seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dnp_guard.errors import DnpGuardError
from dnp_guard.preview.probe import Net, Probe, asked_as

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from dnp_guard.lab.distill.looks import Example
    from dnp_guard.policy import Policy

_BATCH = 256
_RATE = 2e-3
_DECAY = 1e-3
_PARTS = 10
"""Of ten images six train the network, two choose the thresholds and two check them."""
_TRAINED, _CHOSEN = 6, 8


@dataclass(frozen=True, slots=True)
class Checked:
    """What a threshold does on images that neither trained the network nor chose the threshold.

    Attributes:
        max_miss: the share of misses it was chosen for.
        found: looks in which something was found.
        missed: of them, those that would have been skipped.
        clean: looks in which nothing was found.
        skipped: of them, those that would have been skipped.
    """

    max_miss: float
    found: int
    missed: int
    clean: int
    skipped: int


def train(
    looks: Sequence[Example],
    policy: Policy,
    space: str,
    vlm: tuple[str, str],
    *,
    rounds: int = 12,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Probe:
    """Train a probe on some looks, and keep others to choose thresholds by.

    Args:
        looks: at many images.
        policy: that they were made under.
        space: the latents they are of.
        vlm: name and revision of the model that answered.
        rounds: passes over the training looks.
        seed: of the first weights and of the order.
        advance: hears of rounds that are done.

    Raises:
        DnpGuardError: nothing was ever found, or too few images were looked at.
    """
    categories = [category.id for category in policy.categories if not category.sensitive]
    trained, chosen, _ = parts(looks)
    if not chosen or not any(look.found for look in trained) or all(look.found for look in trained):
        raise DnpGuardError(
            f"{len(looks)} looks are too few to learn from: some must find something, and some nothing",
            hint="Look at more images, some of them of prompts that draw what the policy looks for.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(looks[0].latents.shape[0], len(categories))
    latents, progress, found = _tensors(trained, categories)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), _RATE, weight_decay=_DECAY)
    steps = rounds * -(-len(trained) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(rounds):
        for rows in torch.randperm(len(trained), generator=order).split(_BATCH):
            loss = F.binary_cross_entropy_with_logits(net(latents[rows].float(), progress[rows]), found[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        advance(1)
    net = net.half().float().eval().requires_grad_(requires_grad=False)  # as it will be saved
    bare = Probe(net, space, {each: asked_as(policy, each) for each in categories}, vlm, {})
    scored = _scored(bare, chosen)
    seen = {
        each: torch.tensor(sorted(row[each] for row, look in zip(scored, chosen, strict=True) if each in look.found))
        for each in categories
    }
    return Probe(net, space, bare.categories, vlm, seen)


def check(probe: Probe, looks: Sequence[Example], max_miss: float) -> Checked:
    """Count what a threshold misses and skips, on the images kept for that."""
    limits = {category: probe.threshold(category, max_miss) for category in probe.categories}
    _, _, kept = parts(looks)
    skips = [all(row[each] < limits[each] for each in row) for row in _scored(probe, kept)]
    found = [skip for skip, look in zip(skips, kept, strict=True) if look.found]
    clean = [skip for skip, look in zip(skips, kept, strict=True) if not look.found]
    return Checked(max_miss, len(found), sum(found), len(clean), sum(clean))


def parts(looks: Sequence[Example]) -> tuple[list[Example], list[Example], list[Example]]:
    """Looks to train on, to choose thresholds by and to check them on, no image in two of them."""
    place = {look.image: int(hashlib.sha256(look.image.encode()).hexdigest(), 16) % _PARTS for look in looks}
    return (
        [look for look in looks if place[look.image] < _TRAINED],
        [look for look in looks if _TRAINED <= place[look.image] < _CHOSEN],
        [look for look in looks if place[look.image] >= _CHOSEN],
    )


def _tensors(looks: Sequence[Example], categories: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    latents = torch.stack([look.latents for look in looks])
    progress = torch.tensor([look.progress for look in looks])
    found = torch.tensor([[float(each in look.found) for each in categories] for look in looks])
    return latents, progress, found


def _scored(probe: Probe, looks: Sequence[Example]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    with torch.no_grad():
        for at in range(0, len(looks), _BATCH):
            latents, progress, _ = _tensors(looks[at : at + _BATCH], ())
            scores = probe.net(latents.float(), progress).sigmoid().tolist()
            rows += [dict(zip(probe.categories, row, strict=True)) for row in scores]
    return rows
