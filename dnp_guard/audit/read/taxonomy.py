"""What a log's policies say of where their categories belong in published lists of hazards."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from dnp_guard.audit.events import PolicyLoaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def classified(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Records, those with findings with a `taxonomy` of each category found that has one.

    Args:
        records: of a log from its beginning, where the policies say it.
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
    """The categories of a record's findings, once each."""
    findings = record.get("findings")
    found = [str(each.get("category")) for each in findings or () if isinstance(each, dict)]
    return list(dict.fromkeys(found))
