"""Add the field `taxonomy` to records: the entries of published lists of hazards for the categories found."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from dnp_guard.audit.events import PolicyLoaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def classified(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the records, those with findings with an additional field `taxonomy`.

    It contains, by category, the entry of a published list of hazards that the policy in the log names.

    Args:
        records: records of a log from its beginning, so that its policies are among them.
    """
    known: dict[str, dict[str, Any]] = defaultdict(dict)
    for record in records:
        tenant = str(record.get("tenant", ""))
        loaded = record.get("loaded")
        if record["event"] == PolicyLoaded.name and isinstance(loaded, dict):
            taxonomy = loaded.get("taxonomy")
            known[tenant] |= taxonomy if isinstance(taxonomy, dict) else {}
        own = known[tenant]
        listed = {name: own[name] for name in found_categories(record) if isinstance(own.get(name), dict)}
        yield {**record, "taxonomy": listed} if listed else record


def found_categories(record: Mapping[str, Any]) -> list[str]:
    """Return the ids of the categories in a record's findings, without repeats."""
    findings = record.get("findings")
    names = [str(finding.get("category")) for finding in findings or () if isinstance(finding, dict)]
    return list(dict.fromkeys(names))
