"""What the service says of a finished image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dnp_guard.hosts.protocol import Verdict
from dnp_guard.hosts.withheld import words
from dnp_guard.server import pictures, replies

if TYPE_CHECKING:
    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
    from dnp_guard.server.receipts import Issuer
    from dnp_guard.server.sessions import Stored


def verdict(issuer: Issuer | None, kept: Stored, live: Driver, index: int, shown: Image, now: float) -> Verdict:
    """The verdict on one image, with a receipt for it where receipts are signed.

    Args:
        issuer: signs receipts; None for none.
        kept: the session.
        live: its driver, which has made the final look.
        index: of the image in the batch.
        shown: the finished image.
        now: seconds since 1970.
    """
    assert live.report is not None  # noqa: S101 (a session that is over has one)
    image, policy = live.report.images[index], live.policy
    action = replies.action(image.decision)
    receipt = None
    if issuer is not None:
        claims = {
            "session": kept.id,
            "image": index,
            "picture": pictures.digest(shown),
            "policy": {"name": policy.name, "revision": policy.revision, "digest": kept.digest},
            "decision": image.decision,
            "action": action,
            "looked": any(query.step is None for query in image.queries),
        }
        receipt = issuer.sign(claims | ({"tenant": kept.tenant} if kept.tenant else {}), now)
    told = replies.decision(image.decision, json.loads(kept.request).get("can") or ())
    message = words(policy, image.decision)
    return Verdict(
        index=index, decision=told, action=action, receipt=receipt, why=image.why, code=str(told), message=message
    )
