"""Statement categories of the EU's DSA Transparency Database since July 2025, and a mapping of other lists to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dnp_guard.errors import AuditError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dnp_guard.policy.model.policy import Policy

PREFIX: Final = "STATEMENT_CATEGORY_"


@dataclass(frozen=True, slots=True)
class StatementCategory:
    """The category under which the DSA Transparency Database files a statement of reasons.

    Attributes:
        category: a statement category, without ``STATEMENT_CATEGORY_``.
        keyword: a keyword of that category, without ``KEYWORD_``; "" for none.
    """

    category: str
    keyword: str = ""


CATEGORIES: Final = (
    "ANIMAL_WELFARE",
    "CONSUMER_INFORMATION",
    "CYBER_VIOLENCE",
    "CYBER_VIOLENCE_AGAINST_WOMEN",
    "DATA_PROTECTION_AND_PRIVACY_VIOLATIONS",
    "ILLEGAL_OR_HARMFUL_SPEECH",
    "INTELLECTUAL_PROPERTY_INFRINGEMENTS",
    "NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS",
    "NOT_SPECIFIED_NOTICE",
    "OTHER_VIOLATION_TC",
    "PROTECTION_OF_MINORS",
    "RISK_FOR_PUBLIC_SECURITY",
    "SCAMS_AND_FRAUD",
    "SELF_HARM",
    "UNSAFE_AND_PROHIBITED_PRODUCTS",
    "VIOLENCE",
)
"""The database's statement categories."""

OTHER: Final = StatementCategory("OTHER_VIOLATION_TC")
"""Category of other violations of the platform's terms."""

_HATE: Final = StatementCategory("ILLEGAL_OR_HARMFUL_SPEECH")
_NUDITY: Final = StatementCategory("OTHER_VIOLATION_TC", "NUDITY")
_SEXUAL: Final = StatementCategory("OTHER_VIOLATION_TC", "ADULT_SEXUAL_MATERIAL")
_PRODUCTS: Final = StatementCategory("UNSAFE_AND_PROHIBITED_PRODUCTS", "PROHIBITED_PRODUCTS")
_DEEPFAKE: Final = StatementCategory("CYBER_VIOLENCE", "NON_CONSENSUAL_MATERIAL_DEEPFAKE")

_NEAREST: Final = {
    ("AILuminate", "cse"): StatementCategory("PROTECTION_OF_MINORS"),
    ("AILuminate", "dfm"): StatementCategory("ILLEGAL_OR_HARMFUL_SPEECH", "DEFAMATION"),
    ("AILuminate", "hte"): _HATE,
    ("AILuminate", "ipv"): StatementCategory("INTELLECTUAL_PROPERTY_INFRINGEMENTS"),
    ("AILuminate", "iwp"): StatementCategory("RISK_FOR_PUBLIC_SECURITY"),
    ("AILuminate", "prv"): StatementCategory("DATA_PROTECTION_AND_PRIVACY_VIOLATIONS"),
    ("AILuminate", "src"): _DEEPFAKE,
    ("AILuminate", "ssh"): StatementCategory("SELF_HARM"),
    ("AILuminate", "sxc"): _SEXUAL,
    ("AILuminate", "vcr"): StatementCategory("VIOLENCE"),
    ("LlavaGuard", "O1"): _HATE,
    ("LlavaGuard", "O2"): StatementCategory("VIOLENCE"),
    ("LlavaGuard", "O3"): _SEXUAL,
    ("LlavaGuard", "O4"): _NUDITY,
    ("LlavaGuard", "O6"): _PRODUCTS,
    ("LlavaGuard", "O7"): StatementCategory("SELF_HARM"),
    ("LlavaGuard", "O8"): StatementCategory("ANIMAL_WELFARE", "ANIMAL_HARM"),
}
"""Nearest statement categories of entries in other lists; entries not listed here are other violations."""

_RENAMED: Final = {
    "NON_CONSENSUAL_BEHAVIOUR": _DEEPFAKE,
    "PORNOGRAPHY_OR_SEXUALIZED_CONTENT": _SEXUAL,
    "SCOPE_OF_PLATFORM_SERVICE": OTHER,
    "UNSAFE_AND_ILLEGAL_PRODUCTS": _PRODUCTS,
}
"""Successors of the statement categories that existed until July 2025."""


def categories_of(policies: Iterable[Policy]) -> dict[str, StatementCategory]:
    """Map the categories of policies to statement categories, by the ``taxonomy`` of the category.

    A taxonomy named ``DSA`` names the statement category itself; an entry of another list of hazards is mapped to the
    nearest one.

    Returns:
        Statement category by id of the policy category, for the categories with a taxonomy.

    Raises:
        AuditError: a taxonomy named ``DSA`` has an id that the database does not know.
    """
    mapping: dict[str, StatementCategory] = {}
    for policy in policies:
        for category in policy.categories:
            of = category.taxonomy
            if of is None:
                continue
            listed = nearest_of(of.name, of.id)
            if listed is None and of.name.upper() == "DSA":
                meant = nearest(of.id, [PREFIX + name for name in CATEGORIES])
                raise AuditError(
                    f"category {category.id!r} of {policy.name!r}: the DSA's database has no {of.id!r}",
                    hint=f"Did you mean {meant}?" if meant else "Its API documentation lists them.",
                )
            mapping[category.id] = listed or OTHER
    return mapping


def nearest_of(name: str, entry: str) -> StatementCategory | None:
    """Return the statement category nearest to an entry of a published list of hazards; None if none is near.

    >>> nearest_of("LlavaGuard", "O8")
    StatementCategory(category='ANIMAL_WELFARE', keyword='ANIMAL_HARM')
    """
    if name.upper() != "DSA":
        return _NEAREST.get((name, entry))
    plain = entry.removeprefix(PREFIX)
    return StatementCategory(plain) if plain in CATEGORIES else _RENAMED.get(plain)
