"""A latent probe: a small network that predicts the vision-language model's findings from the latents x̂0.

It reads these latents without decoding them, so it costs almost nothing. It only decides which queries to skip, at a
miss rate that the policy sets; it never decides whether an image is delivered.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dnp_guard.canonical import canonical
from dnp_guard.errors import DnpGuardError
from dnp_guard.policy import negation, questions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dnp_guard.policy import Policy

FORMAT: Final = 1
_WIDTH: Final = 48
_SPACES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Hashes of the autoencoders in use, because reading all weights of a large one takes a moment."""


class Net(nn.Module):
    """The probe's convolutional network, with fewer than 200,000 weights.

    It maps latents [B, C, h, w] of any size, and the progress of the run [B], 0…1, to logits [B, K] of K categories.

    Args:
        channels: number of latent channels, C.
        categories: number of categories, K.
        width: number of channels of the first layer.
    """

    def __init__(self, channels: int, categories: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels + 1, width, 3, padding=1),
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            ]
        )
        self.head = nn.Linear(4 * width, categories)

    def forward(self, latents: Tensor, progress: Tensor) -> Tensor:
        """Compute logits from the features' maximum and mean over all positions, so that content is found anywhere."""
        plane = progress.to(latents).view(-1, 1, 1, 1).expand(-1, 1, *latents.shape[2:])
        x = torch.cat([latents, plane], 1)
        for layer in self.layers:
            x = F.silu(layer(x))
        logits: Tensor = self.head(torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1))
        return logits


@dataclass(frozen=True, eq=False, slots=True)
class Probe:
    """A trained probe, with the autoencoder, the questions and the model that it was trained for.

    Attributes:
        net: the network.
        space: hash of the autoencoder whose latents it reads, from :func:`space_of`.
        categories: hash of a category's questions, from :func:`asked_as`, by category id, in the order of the logits.
        vlm: name and revision of the vision-language model whose answers it predicts.
        seen: by category id, the probe's probabilities in held-out queries that found the category, ascending.
    """

    net: Net
    space: str
    categories: Mapping[str, str]
    vlm: tuple[str, str]
    seen: Mapping[str, Tensor]

    @torch.no_grad()
    def scores(self, latents: Tensor, progress: float) -> list[dict[str, float]]:
        """Return for every image the probability that a query finds a category, by category id.

        Args:
            latents: scaled latents x̂0, as the sampler uses them, [B, C, h, w].
            progress: fraction of the steps that are done.
        """
        here = latents.float().to(next(self.net.parameters()).device)
        rows = self.net(here, here.new_full((len(here),), progress)).sigmoid().tolist()
        return [dict(zip(self.categories, row, strict=True)) for row in rows]

    def threshold(self, category: str, max_miss: float) -> float:
        """Return the probability from the probe below which a query about a category is skipped.

        It is the k-th lowest of the n probabilities from held-out queries that found the category, where
        k = ⌊max_miss (n + 1)⌋; 0 if k is 0. A further query that would find the category falls below it with a chance
        of at most k / (n + 1) (split conformal prediction; Vovk et al. 2005).

        Args:
            category: id of the category.
            max_miss: fraction of the queries finding the category that may be skipped, from the policy.
        """
        seen = self.seen[category]
        k = int(max_miss * (len(seen) + 1))
        return float(seen[k - 1]) if k else 0.0

    def nearness(self, latents: Tensor, progress: float, max_miss: float) -> list[dict[str, float]]:
        """Return :meth:`scores` divided by the categories' thresholds; a category with 1 or more must be queried."""
        limits = {category: self.threshold(category, max_miss) for category in self.categories}
        return [
            {name: score / limits[name] if limits[name] else float("inf") for name, score in row.items()}
            for row in self.scores(latents, progress)
        ]

    def check_policy(self, policy: Policy, vlm: tuple[str, str]) -> None:
        """Check that the probe was trained on the answers of this model to this policy's questions.

        Sensitive categories need no probe, because every query asks about them.

        Args:
            policy: the policy in force.
            vlm: name and revision of the model that answers the queries.

        Raises:
            DnpGuardError: the probe was trained on other questions, or on the answers of another model.
        """
        for category in policy.categories:
            if not category.sensitive and self.categories.get(category.id) != asked_as(policy, category.id):
                raise DnpGuardError(
                    f"the probe was trained on other questions or thresholds than policy {policy.name!r} has for "
                    f"{category.id!r}",
                    hint="Train one for this policy with `dnp-guard distill`, or leave queries.skip_probe out.",
                )
        if vlm != self.vlm:
            raise DnpGuardError(
                f"the probe predicts the answers of {' '.join(self.vlm)}, but the backend is {' '.join(vlm)}",
                hint="Train one for this backend with `dnp-guard distill`, or leave queries.skip_probe out.",
            )

    def check_space(self, vae: Any) -> None:
        """Check that the probe reads the latents of this autoencoder.

        Raises:
            DnpGuardError: the probe was trained on the latents of another autoencoder.
        """
        if vae not in _SPACES:
            _SPACES[vae] = space_of(vae)
        if _SPACES[vae] != self.space:
            raise DnpGuardError(
                f"the probe was trained on the latents of another autoencoder than this {type(vae).__name__}",
                hint="Train one for this model with `dnp-guard distill`, or leave queries.skip_probe out.",
            )


def asked_as(policy: Policy, category_id: str) -> str:
    """Return the SHA-256 of a category's questions and threshold, which decide whether the category is found."""
    category = policy.category(category_id)
    own = [question for question in questions(policy) if question.category == category_id]
    texts = [
        text
        for question in own
        for text in ([question.text, negation(question).text] if policy.question.paired else [question.text])
    ]
    threshold = category.model_dump(mode="json", include={"threshold"})
    return hashlib.sha256(canonical({"questions": texts, **threshold})).hexdigest()


def space_of(vae: Any) -> str:
    """Return the SHA-256 of an autoencoder's weights as float16, so that it is the same in float32 and in float16."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float16).contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(probe: Probe, path: Path) -> None:
    """Write a probe to a file: its weights as float16, and hashes of the autoencoder and questions of its training."""
    metadata = {
        "format": FORMAT,
        "channels": probe.net.layers[0].in_channels - 1,
        "space": probe.space,
        "categories": dict(probe.categories),
        "vlm": list(probe.vlm),
    }
    tensors = {f"net.{name}": value.half().contiguous() for name, value in probe.net.state_dict().items()}
    tensors |= {f"seen.{name}": value.float().contiguous() for name, value in probe.seen.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"probe": json.dumps(metadata)})
    path.chmod(0o644)


def load(path: Path) -> Probe:
    """Read a probe from a file that :func:`save` wrote.

    Raises:
        DnpGuardError: the file is not a probe, or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as saved:
            metadata = json.loads(saved.metadata()["probe"])
            tensors = {name: saved.get_tensor(name).float() for name in saved.keys()}  # noqa: SIM118 (no mapping)
        known = {FORMAT: Net}[metadata["format"]]
        net = known(metadata["channels"], len(metadata["categories"]))
        net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        seen = {category: tensors[f"seen.{category}"] for category in metadata["categories"]}
        name, revision = metadata["vlm"]
        return Probe(
            net.eval().requires_grad_(requires_grad=False),
            metadata["space"],
            metadata["categories"],
            (name, revision),
            seen,
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DnpGuardError(
            f"{path}: no probe could be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            hint="Give a file that `dnp-guard distill` wrote.",
        ) from error
