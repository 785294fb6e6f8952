"""A log with a little of everything, hostile text in every field included."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from PIL import Image

from dnp_guard.audit import previews
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
HOSTILE = "e" * 32
START = datetime(2026, 11, 20, tzinfo=UTC)
POLICY = {"name": "default", "revision": "1.0.0", "digest": "d" * 64, "mode": "enforce"}
SHADOW = {"name": "strict", "revision": "2.1.0", "digest": "e" * 64, "mode": "shadow"}
CATEGORIES = ("nudity", "weapon", "gore")


def seed(log: Path, generations: int = 60) -> None:
    """Write the log."""
    sink, random_ = JsonlSink(log), random.Random(7)
    told = {"author": "ann", "approver": "bob", "reason": "fewer false alarms", "loosened": True, "before": "c" * 64}
    sink.write(build("policy.loaded", at=START, policy=POLICY, loaded={**told, "source": "policies/default.yaml"}))
    sink.write(build("policy.rejected", at=START, reason="it is signed with another key"))
    sink.write(build("policy.loaded", at=START, policy=SHADOW, loaded={"reason": EVIL, "approver": EVIL}))
    for number in range(generations):
        request = HOSTILE if number == 7 else f"{random_.getrandbits(128):032x}"
        _generation(sink, log, number, request, random_.uniform(0.5, 1))
    sink.close()


def _generation(sink: JsonlSink, log: Path, number: int, request: str, probability: float) -> None:
    at = START + timedelta(hours=2 * number)
    hostile = request == HOSTILE
    policy = {**POLICY, "name": EVIL} if hostile else SHADOW if number % 5 == 0 else POLICY
    of = {"request": request, "policy": policy, "tenant": EVIL if hostile else "acme" if number % 3 else "globex"}
    category = EVIL if hostile else CATEGORIES[number % 3]
    found = {"category": category, "term": EVIL if hostile else "a term", "probability": probability, "threshold": 0.5}
    is_seen, is_still = number % 4 != 3 or hostile, number % 4 == 0 or hostile
    seen = {"findings": [found]} if is_seen else {}
    picture = Image.radial_gradient("L").convert("RGB")
    kept = {"preview": previews.keep(previews.folder(log), request, 0, 5, picture)} if is_seen else {}
    sink.write(build("request.started", at=at, **of, host={"name": "a1111", "version": "1.10"}, run={"seed": number}))
    action = "steer" if is_seen else "none"
    look = {**of, "image": 0, "step": 5, "steps": 25}
    sink.write(build("query", at=at, **look, **seen, **kept, decision=action, latency_ms=31.5))
    if is_seen and policy["mode"] == "enforce":
        negative = {"text": category, "scale": 7.5, "mode": "separate", "effective": True}
        sink.write(build("negative.injected", at=at, **look, **seen, applied_step=6, negative=negative))
    final = seen if is_still else {}
    sink.write(build("query", at=at, **of, image=0, **final, decision="block" if is_still else "none", latency_ms=30.0))
    outcome = "blocked" if is_still else "steered"
    shadow = policy["mode"] == "shadow"
    would = {"would": {"decision": outcome}} if is_seen and shadow else {}
    decision = outcome if is_seen and not shadow else "clean"
    sink.write(build("request.finished", at=at, **of, image=0, decision=decision, **would))
