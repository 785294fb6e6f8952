"""Check whether a vision-language backend may enforce a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import VlmUnavailable
from dnp_guard.policy.model.questions import every_question
from dnp_guard.vlm.remote.address import allowed

if TYPE_CHECKING:
    from dnp_guard.policy.model.calibration import Calibration
    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.vlm.base import Backend, BackendInfo


def refuse_backend(policy: Policy, backend: Backend) -> None:
    """Check that a policy allows a backend, and that the backend can answer the policy's questions.

    A backend that combines several is checked member by member.

    Raises:
        VlmUnavailable: the policy does not allow a member, or a member cannot answer a question.
    """
    asked = [question.text for question in every_question(policy)]
    for member in backend.members:
        _refuse(policy, member.info)
        member.accepts(asked)


def _refuse(policy: Policy, info: BackendInfo) -> None:
    sensitive = [category.id for category in policy.categories if category.sensitive]
    listed = policy.vlm is None or (
        all(allowed(address, policy.vlm.allow) for address in info.addresses)
        if info.addresses
        else info.local and "local" in policy.vlm.allow
    )
    if not listed or (sensitive and not info.local):
        why, hint = "vlm.allow does not list it", "Use a backend that the policy allows."
        if sensitive and not info.local:
            why = f"category {sensitive[0]!r} is sensitive"
            hint = "Use a backend of this process, such as transformers:FOLDER."
        raise VlmUnavailable(f"policy {policy.name!r} does not allow the backend {info.name!r}: {why}", hint=hint)
    if info.answers == "text" and policy.mode == "enforce" and policy.question.answer != "text":
        raise VlmUnavailable(
            f"the backend {info.name!r} answers yes or no in text, which an image can manipulate more easily",
            hint="Use a backend that gives probabilities, or write question: {answer: text} in the policy.",
        )


def refuse_uncalibrated(policy: Policy, backend: Backend) -> None:
    """Check that a policy's calibrated thresholds were measured on this backend, or on a backend that it combines.

    Raises:
        VlmUnavailable: the thresholds of an enforced category were measured on another backend.
    """
    info = backend.info
    of_members = [measured_on_another(policy, member.info.name, member.info.revision) for member in backend.members]
    for category in measured_on_another(policy, info.name, info.revision):
        if not policy.shadow(category.id) and all(category in others for others in of_members):
            raise VlmUnavailable(
                f"policy {policy.name!r}: the thresholds of {category.id!r} were measured on {category.calibration}, "
                f"and the backend is {info.name} {info.revision}",
                hint=_hint(category.calibration, info),
            )


def _hint(on: Calibration | None, info: BackendInfo) -> str:
    measure = "Measure this model with `dnp-guard vlm calibrate`, or try it with `mode: shadow`."
    if on is None or on.vlm != info.name:
        return measure
    return (
        "A revision now covers the tokenizer, the processor and the template besides the weights: if none of them has "
        f"changed since, write {info.revision} as vlm.revision in {on.file}. {measure}"
    )


def measured_on_another(policy: Policy, name: str, revision: str) -> list[Category]:
    """Return the categories whose thresholds were measured on another backend or revision than this one.

    The revisions are compared, since one model has many names; if the revision is unknown, the names are compared too.
    """
    return [
        category
        for category in policy.categories
        if (on := category.calibration) is not None
        and (on.vlm_revision != revision or (revision == "unknown" and on.vlm != name))
    ]
