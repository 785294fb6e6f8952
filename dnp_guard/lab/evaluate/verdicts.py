"""Calibrate the recorded answers of a vision-language model by people's verdicts on the images."""

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
    """Calibrate the recorded answers of the model that answered about the last image with a verdict, per category.

    For every image and category, the calibration uses the highest recorded probability, with people's verdict as the
    label. A log records only probabilities that reached their threshold. So the result can be a higher threshold, but
    never a lower one.

    Args:
        policy: policy with the categories to calibrate; sensitive ones are left out.
        log: audit log with verdicts.
        rate: share of the false alarms that may remain, 0 to 1.

    Returns:
        The model, and one calibration per category.

    Raises:
        AuditError: if no verdict is about an image under this policy.
    """
    models = {image_of(record): _info(record) for record in log.only(RequestFinished.name)}
    scores: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    measured = [image for image in reviews(log, policy.name).images if image.agreed is not None]
    info = models[measured[-1].row.request, measured[-1].row.image] if measured else BackendInfo("", "", local=True)
    usable = {category.id for category in policy.categories if not category.sensitive}
    for image in measured:
        verdict = image.agreed
        if verdict is None or models[image.row.request, image.row.image] != info:
            continue
        for sight in image.row.sights.values():
            about = verdict.category in {"", sight.category} and verdict.verdict in {RIGHT, FALSE_ALARM}
            if about and sight.category in usable and sight.probability is not None:
                scores[sight.category].append((sight.probability, verdict.verdict == RIGHT))
    if not scores:
        raise AuditError(
            f"{log.path}: no verdict is about something seen under policy {policy.name!r}",
            hint="Give verdicts with 'audit verdict', or in the console.",
        )
    calibrations = {
        name: [calibrate([score for score, _ in pairs], [label for _, label in pairs], rate)]
        for name, pairs in scores.items()
    }
    return info, calibrations


def _info(record: Mapping[str, object]) -> BackendInfo:
    vlm = record.get("vlm")
    fields = vlm if isinstance(vlm, dict) else {}
    return BackendInfo(str(fields.get("name", "")), str(fields.get("revision", "")), local=True)
