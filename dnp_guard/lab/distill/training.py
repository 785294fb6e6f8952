"""Train a latent probe, and choose its thresholds on images that it was not trained on."""

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

    from dnp_guard.lab.distill.examples import Example
    from dnp_guard.policy import Policy

_BATCH = 256
_RATE = 2e-3
_DECAY = 1e-3
_PARTS = 10
"""Of ten images, six train the network, two choose the thresholds and two check them."""
_TRAINED, _CHOSEN = 6, 8


@dataclass(frozen=True, slots=True)
class Checked:
    """Effect of a probe's thresholds on images used neither for its training nor for the choice of the thresholds.

    A look is an answered query about one image; a probe misses if it would have skipped a query with a finding.

    Attributes:
        max_miss: share of misses that the thresholds were chosen for, 0…1.
        found: number of looks in which the model found a category.
        missed: number of these looks that the probe would have skipped.
        clean: number of looks in which the model found nothing.
        skipped: number of these looks that the probe would have skipped.
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
    """Train a probe on six tenths of the images, and store its scores on two tenths, from which thresholds are chosen.

    Args:
        looks: answered queries about many images.
        policy: policy under which the looks were made.
        space: name of the latent space.
        vlm: name and revision of the model that answered.
        rounds: number of passes over the training looks.
        seed: seed of the first weights and of the order of the looks.
        advance: function that is called with 1 after every round.

    Returns:
        The probe, in float32, with its weights rounded to the float16 in which it will be saved.

    Raises:
        DnpGuardError: if there are too few images, or if all training looks found something or none did.
    """
    categories = [category.id for category in policy.categories if not category.sensitive]
    trained, chosen, _ = parts(looks)
    if not chosen or not any(look.found for look in trained) or all(look.found for look in trained):
        raise DnpGuardError(
            f"{len(looks)} looks are too few to learn from: some must find a category, and some must find none",
            hint="Add images, some of them from prompts that lead to a category of the policy.",
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
    bare = Probe(net, space, {category: asked_as(policy, category) for category in categories}, vlm, {})
    scored = _scored(bare, chosen)
    seen = {
        category: torch.tensor(
            sorted(row[category] for row, look in zip(scored, chosen, strict=True) if category in look.found)
        )
        for category in categories
    }
    return Probe(net, space, bare.categories, vlm, seen)


def check(probe: Probe, looks: Sequence[Example], max_miss: float) -> Checked:
    """Count the queries that a probe would skip, with and without a finding, on the images reserved for this check.

    Args:
        probe: probe that :func:`train` returned.
        looks: the looks that were given to :func:`train`.
        max_miss: share of misses to choose the thresholds for, 0…1.
    """
    limits = {category: probe.threshold(category, max_miss) for category in probe.categories}
    _, _, checked = parts(looks)
    skips = [all(row[category] < limits[category] for category in row) for row in _scored(probe, checked)]
    found = [skip for skip, look in zip(skips, checked, strict=True) if look.found]
    clean = [skip for skip, look in zip(skips, checked, strict=True) if not look.found]
    return Checked(max_miss, len(found), sum(found), len(clean), sum(clean))


def parts(looks: Sequence[Example]) -> tuple[list[Example], list[Example], list[Example]]:
    """Divide looks into those to train on, to choose thresholds by and to check on; every image is in one part."""
    place = {look.image: int(hashlib.sha256(look.image.encode()).hexdigest(), 16) % _PARTS for look in looks}
    return (
        [look for look in looks if place[look.image] < _TRAINED],
        [look for look in looks if _TRAINED <= place[look.image] < _CHOSEN],
        [look for look in looks if place[look.image] >= _CHOSEN],
    )


def _tensors(looks: Sequence[Example], categories: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Stack the latents [N, C, h, w], the progress [N] and the labels [N, categories] of some looks."""
    latents = torch.stack([look.latents for look in looks])
    progress = torch.tensor([look.progress for look in looks])
    found = torch.tensor([[float(category in look.found) for category in categories] for look in looks])
    return latents, progress, found


def _scored(probe: Probe, looks: Sequence[Example]) -> list[dict[str, float]]:
    """Return the probe's scores of every look, 0 to 1 by category."""
    rows: list[dict[str, float]] = []
    with torch.no_grad():
        for at in range(0, len(looks), _BATCH):
            latents, progress, _ = _tensors(looks[at : at + _BATCH], ())
            scores = probe.net(latents.float(), progress).sigmoid().tolist()
            rows += [dict(zip(probe.categories, row, strict=True)) for row in scores]
    return rows
