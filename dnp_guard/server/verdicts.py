"""The verdicts of the service on finished images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dnp_guard.hosts.protocol import Verdict, Verdicts
from dnp_guard.hosts.withheld import words
from dnp_guard.server import pictures, replies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
    from dnp_guard.server.receipts import Issuer
    from dnp_guard.server.sessions import Stored
    from dnp_guard.types import ImageReport


def verdicts(
    issuer: Issuer | None,
    stored: Stored,
    live: Driver,
    shown: Mapping[int, Image | None],
    now: float,
    again: Sequence[int] = (),
) -> Verdicts:
    """Make the verdict on every image of an attempt, with a receipt if receipts are signed.

    Args:
        issuer: signs receipts; None for no receipts.
        stored: the session.
        live: driver of the session, which has already queried the finished images.
        shown: the finished images, by index in the batch. None stands for an image of which this attempt brought no
            picture; its verdict is then about the picture of the attempt before.
        now: time in seconds since 1970.
        again: indices of the images that the host has to generate again.
    """
    report = live.report or live.session.so_far
    assert report is not None  # noqa: S101 (a session with outcomes has one)
    images = [
        _verdict(issuer, stored, live, index, report.images[index], picture, now, again=index in again)
        for index, picture in shown.items()
    ]
    return Verdicts(images=images)


def _verdict(
    issuer: Issuer | None,
    stored: Stored,
    live: Driver,
    index: int,
    image: ImageReport,
    shown: Image | None,
    now: float,
    *,
    again: bool,
) -> Verdict:
    policy, action = live.policy, replies.action(image.decision)
    receipt = None
    if issuer is not None and shown is not None and not again:
        claims = {
            "session": stored.id,
            "image": index,
            "picture": pictures.digest(shown),
            "policy": {"name": policy.name, "revision": policy.revision, "digest": stored.digest},
            "decision": image.decision,
            "action": action,
            "looked": any(query.step is None for query in image.queries),
        }
        receipt = issuer.sign(claims | ({"tenant": stored.tenant} if stored.tenant else {}), now)
    decision = replies.decision(image.decision, json.loads(stored.request).get("can") or ())
    message = words(policy, image.decision)
    return Verdict(
        index=index,
        decision=decision,
        action="retry" if again else action,
        receipt=receipt,
        why=image.why,
        code=str(decision),
        message=message,
        otherwise=action if again else None,
        earlier=shown is None,
    )
