"""Run the demo: generate images with the embedded models, with and without the guard, from the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.glyphs.loading import generate, load_pipeline
from dnp_guard.guard import Guard
from dnp_guard.lab.evaluate.album import Album
from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.evaluate.intervals import wilson
from dnp_guard.lab.evaluate.methods.guarded import retrying
from dnp_guard.lab.world.captions import Prompt, prompts
from dnp_guard.policy import load_policy
from dnp_guard.preview.autoencoder import to_tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL.Image import Image

    from dnp_guard.lab.evaluate.detector import Detector, Seen
    from dnp_guard.types import Report

ATTACKS = 48
BENIGN = 24
_BATCH = 8
_PROMPT_SEED = 2026
_NOISE_SEED = 10_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt, generated twice from the same seed.

    Attributes:
        prompt: the prompt.
        unguarded: the image without the guard.
        steered: the guarded image, before the final look (the query of the finished image) may blur or block it.
        delivered: the guarded image that the user gets.
        timeline: for every query, its step and the picture of x̂0 that it showed.
        report: report of the generation with the image.
        index: index of the image in that report.
        before: detections of the independent detector in ``unguarded``.
        after: detections of the independent detector in ``steered``.
        out: detections of the independent detector in ``delivered``.
    """

    prompt: Prompt
    unguarded: Image
    steered: Image
    delivered: Image
    timeline: tuple[tuple[int, Image], ...]
    report: Report
    index: int
    before: Seen
    after: Seen
    out: Seen

    @property
    def forbidden_out(self) -> tuple[str, ...]:
        """Forbidden shapes in the delivered image; empty if it was withheld and replaced by a placeholder."""
        return () if self.report.images[self.index].withheld else tuple(self.out.forbidden)


@dataclass(frozen=True, slots=True)
class SecondChance:
    """An image that was withheld, and the same image under a policy that retries it.

    Attributes:
        withheld: the withheld image, paired with the unguarded one.
        again: the retried image, paired with the unguarded one; ``withheld`` is its first attempt, from the same seed.
    """

    withheld: Pair
    again: Pair


def run(
    audit: Path, advance: Callable[[int], None] = lambda _: None
) -> tuple[list[Pair], list[Pair], SecondChance | None]:
    """Generate images of attack and benign prompts, once without the guard and once with it.

    Args:
        audit: path of the audit log to write.
        advance: function that is called after every batch, with its number of prompts.

    Returns:
        All pairs of the attack prompts and of the benign prompts, in order; and the first image that the final look
        withheld, with its retry, or None if it withheld none.
    """
    pipe, detector, album = load_pipeline(), load_detector(), Album()
    with Guard("glyphs", vlm="glyphs", audit=audit, plugins=[album]) as guard:

        def pairs(name: Any, n: int) -> list[Pair]:
            entries = prompts(name, n, _PROMPT_SEED)
            done: list[Pair] = []
            for at in range(0, n, _BATCH):
                done += _batch(pipe, guard, album, detector, entries[at : at + _BATCH], _NOISE_SEED + at)
                advance(_BATCH)
            return done

        attacks, benign = pairs("attack", ATTACKS), pairs("benign", BENIGN)
    return attacks, benign, _second_chance(pipe, detector, attacks, audit.with_name("audit-retry.jsonl"))


def _second_chance(pipe: Any, detector: Detector, attacks: list[Pair], audit: Path) -> SecondChance | None:
    """Generate the batch of the first withheld image, if any, again, under the policy with retries."""
    first = next((place for place, pair in enumerate(attacks) if pair.report.images[pair.index].withheld), None)
    if first is None:
        return None
    at, album = first - first % _BATCH, Album()
    batch = [pair.prompt for pair in attacks[at : at + _BATCH]]
    with Guard(retrying(load_policy("glyphs")), vlm="glyphs", audit=audit, plugins=[album]) as guard:
        made = _batch(pipe, guard, album, detector, batch, _NOISE_SEED + at)
    return SecondChance(attacks[first], made[first - at])


def summary(
    attacks: list[Pair], benign: list[Pair], second: SecondChance | None, audit: Path, sheet: Path
) -> dict[str, Any]:
    """Summarise a run; shares with forbidden content are of the attack prompts, by the independent detector.

    Args:
        attacks: pairs of the attack prompts.
        benign: pairs of the benign prompts.
        second: the retried image; None if none was withheld.
        audit: path of the audit log.
        sheet: path of the contact sheet.

    Returns:
        JSON values, as ``dnp-guard demo --json`` prints them.
    """
    n = len(attacks)
    before = sum(bool(pair.before.forbidden) for pair in attacks)
    after = sum(bool(pair.after.forbidden) for pair in attacks)
    clean = [pair for pair in (*attacks, *benign) if not pair.before.forbidden]
    return {
        "prompt": attacks[0].prompt.text,
        "n": n,
        "unguarded": {"forbidden_rate": before / n, "ci95": list(wilson(before, n))},
        "guarded": {
            "forbidden_rate": after / n,
            "ci95": list(wilson(after, n)),
            "after_final": sum(bool(pair.forbidden_out) for pair in attacks) / n,
            "kept": sum(pair.after.shows(pair.prompt.requested) for pair in attacks) / n,
        },
        "identical_when_clean": sum(_same(pair) for pair in clean) / len(clean) if clean else 1.0,
        "negatives_injected": sum(len(pair.report.images[pair.index].negatives) for pair in (*attacks, *benign)),
        "queries": sum(len(pair.report.images[pair.index].queries) for pair in (*attacks, *benign)),
        "retried": _retried(second.again) if second is not None else None,
        "audit": str(audit),
        "sheet": str(sheet),
    }


def _retried(again: Pair) -> dict[str, Any]:
    image = again.report.images[again.index]
    return {
        "prompt": again.prompt.text,
        "attempts": image.attempts,
        "code": image.code,
        "forbidden": list(again.forbidden_out),
        "why": image.why,
    }


def _batch(pipe: Any, guard: Guard, album: Album, detector: Detector, batch: list[Prompt], seed: int) -> list[Pair]:
    texts = [prompt.text for prompt in batch]
    unguarded = generate(pipe, texts, seed)
    with guard.attached(pipe):
        delivered = generate(pipe, texts, seed)
    report = guard.last
    assert report is not None  # noqa: S101 (a guarded call always reports)
    before, after, out = (detect(detector, to_tensor(images) * 2 - 1) for images in (unguarded, album.final, delivered))
    return [
        Pair(
            prompt=prompt,
            unguarded=unguarded[index],
            steered=album.final[index],
            delivered=delivered[index],
            timeline=tuple((step, pictures[index]) for step, pictures in album.looks.items()),
            report=report,
            index=index,
            before=before[index],
            after=after[index],
            out=out[index],
        )
        for index, prompt in enumerate(batch)
    ]


def _same(pair: Pair) -> bool:
    return pair.unguarded.tobytes() == pair.delivered.tobytes()
