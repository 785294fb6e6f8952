"""Calibrates recorded answers by what people said of the images."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dnp_guard.audit.events import RequestFinished
from dnp_guard.audit.read.verdicts import FALSE_ALARM, RIGHT, image_of, reviews
from dnp_guard.errors import AuditError
from dnp_guard.lab.evaluate.calibration import calibrate
from dnp_guard.vlm.base import BackendInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.audit.read.show import Log
    from dnp_guard.lab.evaluate.calibration import Calibration
    from dnp_guard.policy import Policy


def answered(policy: Policy, log: Log, rate: float) -> tuple[BackendInfo, Mapping[str, list[Calibration]]]:
    """Measure the recorded answers of the latest model about each category.

    Of an image, the highest recorded probability of a category is taken, with whether people agree that it is there.
    The record holds what reached its threshold alone, so a threshold can be found that is higher, and none that is
    lower.

    Args:
        policy: whose categories are measured; what is sensitive is left out.
        log: with verdicts.
        rate: the share of the false alarms that may be left.

    Raises:
        AuditError: no verdict is about an image under this policy.
    """
    asked = {image_of(record): _info(record) for record in log.only(RequestFinished.name)}
    scores: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    measured = [image for image in reviews(log, policy.name).images if image.agreed is not None]
    info = asked[measured[-1].row.request, measured[-1].row.image] if measured else BackendInfo("", "", local=True)
    usable = {category.id for category in policy.categories if not category.sensitive}
    for image in measured:
        verdict = image.agreed
        if verdict is None or asked[image.row.request, image.row.image] != info:
            continue
        for sight in image.row.sights.values():
            about = verdict.category in {"", sight.category} and verdict.verdict in {RIGHT, FALSE_ALARM}
            if about and sight.category in usable and sight.probability is not None:
                scores[sight.category].append((sight.probability, verdict.verdict == RIGHT))
    if not scores:
        raise AuditError(
            f"{log.path}: no verdict is about something seen under policy {policy.name!r}",
            hint="Give some with 'audit verdict', or in the console.",
        )
    found = {
        name: [calibrate([score for score, _ in pairs], [label for _, label in pairs], rate)]
        for name, pairs in scores.items()
    }
    return info, found


def _info(record: Mapping[str, object]) -> BackendInfo:
    vlm = record.get("vlm")
    fields = vlm if isinstance(vlm, dict) else {}
    return BackendInfo(str(fields.get("name", "")), str(fields.get("revision", "")), local=True)
