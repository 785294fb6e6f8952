"""People's verdicts on images, and the error rates that follow from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.events import AppealAnswered, AppealMade, VerdictGiven
from dnp_guard.audit.read.images import ACTED_ON, ImageRow, images
from dnp_guard.audit.read.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.audit.read.show import Log

RIGHT: Final = "right"
FALSE_ALARM: Final = "false_alarm"
MISSED: Final = "missed"


@dataclass(frozen=True, slots=True)
class ReviewVerdict:
    """One person's verdict on one image.

    Attributes:
        time: time of the verdict.
        verdict: ``right``, ``false_alarm`` or ``missed``.
        by: name of the person.
        category: category that the verdict is about; "" for all findings.
        note: remark of the person.
    """

    time: str
    verdict: str
    by: str
    category: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An image with people's verdicts on it.

    Attributes:
        row: collected records of the image.
        verdicts: latest verdict of every person.
    """

    row: ImageRow
    verdicts: tuple[ReviewVerdict, ...]

    @property
    def agreed(self) -> ReviewVerdict | None:
        """The verdict that most people gave; None in case of a tie."""
        counted = Counter(verdict.verdict for verdict in self.verdicts)
        (first, most), *rest = counted.most_common(2)
        if rest and rest[0][1] == most:
            return None
        return next(verdict for verdict in reversed(self.verdicts) if verdict.verdict == first)


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate of one kind of error among the reviewed images.

    Attributes:
        error: ``false_alarm`` among images that were altered or withheld, ``missed`` among all others.
        category: id of the category; "" for all categories.
        count: number of errors.
        of: number of reviewed images of this kind.
        low: lower end of the rate's 95 % interval.
        high: upper end of the interval.
    """

    error: str
    category: str
    count: int
    of: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Reviews:
    """People's verdicts and appeals in a period.

    Attributes:
        images: images with a verdict, in the order in which they were finished.
        appeals: number of appeals.
        upheld: number of appeals after which the decision was upheld.
        overturned: number of appeals after which the decision was overturned.
    """

    images: tuple[Reviewed, ...]
    appeals: int = 0
    upheld: int = 0
    overturned: int = 0

    def rates(self) -> tuple[Rate, ...]:
        """Compute the error rates in total and by category, with their confidence intervals.

        The rates describe the reviewed images, and other images only if the reviewed ones are a random sample.
        """
        counted: Counter[tuple[str, str]] = Counter()
        of: Counter[tuple[str, str]] = Counter()
        for image in self.images:
            verdict = image.agreed
            if verdict is None:
                continue
            error = FALSE_ALARM if image.row.decision in ACTED_ON else MISSED
            about = [verdict.category] if verdict.category else list(image.row.sights)
            for category in ("", *about):
                of[error, category] += 1
                counted[error, category] += verdict.verdict == error
        return tuple(
            Rate(error, category, counted[error, category], count, *wilson(counted[error, category], count))
            for (error, category), count in sorted(of.items())
        )

    def agreement(self) -> tuple[int, int]:
        """Count the pairs of people who gave the same verdict on an image, and all pairs who gave verdicts on one."""
        pairs = [pair for image in self.images for pair in combinations(image.verdicts, 2)]
        return sum(one.verdict == other.verdict for one, other in pairs), len(pairs)

    def overturned_interval(self) -> tuple[float, float]:
        """Compute the 95 % interval of the share of answered appeals that overturned the decision."""
        return wilson(self.overturned, self.upheld + self.overturned)

    def document(self) -> dict[str, Any]:
        """Return the figures of the reviews as a JSON object for programs."""
        same, pairs = self.agreement()
        low, high = self.overturned_interval()
        return {
            "reviewed": len(self.images),
            "rates": [
                {"error": rate.error, "category": rate.category or None, "count": rate.count, "of": rate.of}
                | {"low": round(rate.low, 4), "high": round(rate.high, 4)}
                for rate in self.rates()
            ],
            "agreement": {"same": same, "pairs": pairs},
            "appeals": {"made": self.appeals, "upheld": self.upheld, "overturned": self.overturned}
            | {"overturned_low": round(low, 4), "overturned_high": round(high, 4)},
        }


def reviews(log: Log, policy: str | None = None, tenant: str | None = None) -> Reviews:
    """Collect the verdicts and appeals of a log, except verdicts on images that the log no longer contains.

    Args:
        log: the log, which is read twice if it contains verdicts.
        policy: name, or name and revision, of the policy whose images to include; None for all.
        tenant: tenant whose images to include; None for all.
    """
    given: dict[tuple[str, int], dict[str, ReviewVerdict]] = defaultdict(dict)
    appeals: Counter[str] = Counter()
    for record in log.only(VerdictGiven.name, AppealMade.name, AppealAnswered.name):
        if not _is_of(record, policy, tenant):
            continue
        if record["event"] == VerdictGiven.name:
            verdict = verdict_of(record)
            given[image_of(record)][verdict.by] = verdict
        else:
            appeals[str(record.get("answer", "made"))] += 1
    rows = {key: row for row in images(log) if (key := (row.request, row.image)) in given} if given else {}
    reviewed = tuple(Reviewed(row, tuple(given[key].values())) for key, row in rows.items())
    return Reviews(reviewed, appeals["made"], appeals["upheld"], appeals["overturned"])


def verdict_of(record: Mapping[str, Any]) -> ReviewVerdict:
    """Convert a record of the event ``verdict`` to a verdict."""
    return ReviewVerdict(
        str(record["time"]),
        str(record.get("verdict")),
        str(record.get("by", "")),
        str(record.get("category") or ""),
        str(record.get("note") or ""),
    )


def _is_of(record: Mapping[str, Any], policy: str | None, tenant: str | None) -> bool:
    of = record.get("policy")
    fields = of if isinstance(of, dict) else {}
    names = {str(fields.get("name", "")), f"{fields.get('name', '')} {fields.get('revision', '')}"}
    return (policy is None or policy in names) and tenant in {None, str(record.get("tenant") or "")}


def image_of(record: Mapping[str, Any]) -> tuple[str, int]:
    """Return the id of the generation and the index of the image that a record is about."""
    image = record.get("image", 0)
    return str(record.get("request", "")), image if isinstance(image, int) else 0
