"""Describe how two policies differ in the treatment of finished images. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy.compare.change import Change, Direction
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dnp_guard.policy.model.ends import Retries
    from dnp_guard.policy.model.policy import Policy


def at_the_end(before: Policy, after: Policy) -> Iterator[Change]:
    """Yield the changes of queries of the finished image, of retries, and of the picture for a withheld image."""
    was, now = before.queries, after.queries
    if bool(was.final) != bool(now.final):
        then = "the finished image is queried" if now.final else "the finished image is no longer queried"
        yield Change("", "queries.final", then, Direction.STRICTER if now.final else Direction.MILDER)
    if added := [view for view in now.views if view not in was.views]:
        yield Change("", "queries.final.views", f"also queries {', '.join(added)}", Direction.STRICTER)
    if removed := [view for view in was.views if view not in now.views]:
        yield Change("", "queries.final.views", f"no longer queries {', '.join(removed)}", Direction.MILDER)
    yield from _retries(before.retries, after.retries)
    if before.withheld != after.withheld:
        yield Change("", "withheld", "the picture for a withheld image changes", Direction.NEITHER)


def _retries(was: Retries | None, now: Retries | None) -> Iterator[Change]:
    if was is None or now is None or was == now:
        return  # the categories report whether they retry
    if was.otherwise != now.otherwise:
        stricter = Action(now.otherwise).rank > Action(was.otherwise).rank
        sentence = f"retries otherwise {was.otherwise} → {now.otherwise}"
        yield Change("", "retries.otherwise", sentence, Direction.STRICTER if stricter else Direction.MILDER)
    if was.scale != now.scale:
        sentence = f"retries scale {was.scale:g} → {now.scale:g}"
        yield Change("", "retries.scale", sentence, Direction.STRICTER if now.scale > was.scale else Direction.MILDER)
    for key in ("most", "within_ms"):
        old, new = getattr(was, key), getattr(now, key)
        if old != new:
            sentence = f"retries {key.replace('_', ' ')} {old or 'none'} → {new or 'none'}"
            yield Change("", f"retries.{key}", sentence, Direction.NEITHER)
