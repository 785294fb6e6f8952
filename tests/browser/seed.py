"""Write an audit log with every kind of record, for the console and the report in a browser.

On request, one generation has hostile HTML in every text field.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import cos, pi, sin
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFilter

from dnp_guard.audit import previews
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
HOSTILE = "e" * 32
START = datetime(2026, 11, 20, tzinfo=UTC)
POLICY = {"name": "default", "revision": "1.1.0", "digest": "4f1c" * 16, "mode": "enforce"}
SHADOW = {"name": "strict", "revision": "2.1.0", "digest": "a93e" * 16, "mode": "shadow"}
CATEGORIES = {"nudity": "exposed breasts", "weapon": "a firearm", "gore": "an open wound"}


@dataclass(frozen=True)
class Drawn:
    """One generation of one image, to be written to the audit log.

    Attributes:
        number: number of the generation, which decides its course.
        request: id of the generation.
        probability: probability of its finding.
        category: policy category of its finding.
        term: text that the vision-language model was asked about.
        tenant: name of the tenant.
        policy: the policy's fields in the records.
    """

    number: int
    request: str
    probability: float
    category: str
    term: str
    tenant: str
    policy: dict[str, str]

    @property
    def is_seen(self) -> bool:
        """Whether the category is found during denoising."""
        return self.number % 4 != 3 or self.request == HOSTILE

    @property
    def is_still(self) -> bool:
        """Whether the category is also found in the finished image."""
        return self.number % 4 == 0 or self.request == HOSTILE


def seed(log: Path, generations: int = 60, *, hostile: bool) -> None:
    """Write the audit log.

    Args:
        log: path of the log.
        generations: number of generations.
        hostile: whether one generation has hostile HTML in every text field.
    """
    sink, random_ = JsonlSink(log), random.Random(7)
    loaded = {"author": "Olga Ruiz", "approver": "Bob Hall", "loosened": True, "before": "17aa" * 16}
    loaded |= {"reason": "fewer false alarms of statues", "source": "policies/default.yaml"}
    sink.write(build("policy.loaded", at=START, policy=POLICY, loaded=loaded))
    sink.write(build("policy.rejected", at=START + timedelta(hours=1), reason="it is signed with another key"))
    why = EVIL if hostile else "trial of the second half of November"
    by = EVIL if hostile else "Bob Hall"
    sink.write(
        build("policy.loaded", at=START + timedelta(hours=2), policy=SHADOW, loaded={"reason": why, "approver": by})
    )
    drawn = []
    for number in range(generations):
        is_evil = hostile and number == 7
        category = list(CATEGORIES)[number % 3]
        drawn.append(
            Drawn(
                number,
                HOSTILE if is_evil else f"{random_.getrandbits(128):032x}",
                random_.uniform(0.5, 1),
                EVIL if is_evil else category,
                EVIL if is_evil else CATEGORIES[category],
                EVIL if is_evil else "acme" if number % 3 else "globex",
                {**POLICY, "name": EVIL} if is_evil else SHADOW if number % 5 == 0 else POLICY,
            )
        )
        _generation(sink, log, drawn[-1])
    for one in drawn[:40]:
        if one.number % 2 == 0:
            _judge(sink, one, EVIL if hostile else "a sculpture")
        if one.request == HOSTILE:
            _judge(sink, one, EVIL)
            of = {"request": one.request, "policy": one.policy, "tenant": one.tenant, "image": 0}
            sink.write(build("appeal", at=START + timedelta(days=6), **of, text=EVIL))
    sink.close()


def _generation(sink: JsonlSink, log: Path, drawn: Drawn) -> None:
    at = START + timedelta(hours=3 + 2 * drawn.number)
    of = {"request": drawn.request, "policy": drawn.policy, "tenant": drawn.tenant}
    finding = {"category": drawn.category, "term": drawn.term, "probability": drawn.probability, "threshold": 0.5}
    seen = {"findings": [finding]} if drawn.is_seen else {}
    place, shown = previews.folder(log), picture(drawn)
    fields = {"preview": previews.keep(place, drawn.request, 0, 5, shown, previews.read_key())} if seen else {}
    sink.write(
        build("request.started", at=at, **of, host={"name": "a1111", "version": "1.10"}, run={"seed": drawn.number})
    )
    action = "steer" if seen else "none"
    look = {**of, "image": 0, "step": 5, "steps": 25}
    sink.write(build("query", at=at, **look, **seen, **fields, decision=action, latency_ms=31.5))
    if seen and drawn.policy["mode"] == "enforce":
        negative = {"text": drawn.category, "scale": 7.5, "mode": "separate", "effective": True}
        sink.write(build("negative.injected", at=at, **look, **seen, applied_step=6, negative=negative))
    final = seen if drawn.is_still else {}
    decision = "block" if drawn.is_still else "none"
    sink.write(build("query", at=at, **of, image=0, **final, decision=decision, latency_ms=30.0))
    outcome = "blocked" if drawn.is_still else "steered"
    shadow = drawn.policy["mode"] == "shadow"
    would = {"would": {"decision": outcome}} if seen and shadow else {}
    decision = outcome if seen and not shadow else "clean"
    sink.write(build("request.finished", at=at, **of, image=0, decision=decision, **would))


def _judge(sink: JsonlSink, drawn: Drawn, note: str) -> None:
    of = {"request": drawn.request, "policy": drawn.policy, "tenant": drawn.tenant, "image": 0}
    wrong = drawn.probability < 0.65
    verdict = "false_alarm" if wrong and drawn.is_seen else "right"
    at = START + timedelta(days=6, minutes=drawn.number)
    sink.write(
        build("verdict", at=at, **of, verdict=verdict, by="Ann Lee", note=note if wrong or note == EVIL else None)
    )


def picture(drawn: Drawn) -> Image.Image:
    """Draw a bright star-like figure on a soft background, which differs from number to number."""
    random_ = random.Random(drawn.number)
    colours = [tuple(random_.randrange(40, 220) for _ in range(3)) for _ in range(3)]
    top, bottom = (Image.new("RGB", (256, 256), colour) for colour in colours[:2])
    image = Image.composite(top, bottom, Image.linear_gradient("L"))
    points = 3 + drawn.number % 5
    x, y, size = (random_.randrange(90, 166) for _ in range(3))
    corners = [
        (x + cos(pi * corner / points) * radius, y + sin(pi * corner / points) * radius)
        for corner in range(2 * points)
        for radius in [size / (1 + corner % 2)]
    ]
    ImageDraw.Draw(image).polygon(corners, fill=colours[2])
    return image.filter(ImageFilter.GaussianBlur(1.5))
