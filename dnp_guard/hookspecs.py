"""The hooks that a plugin may implement, with the decorator :data:`dnp_guard.hookimpl`.

A plugin may make a decision stricter, never looser. An implementation that raises is counted in
``dnp_guard_degraded_total{reason="plugin_error"}`` and skipped; the generation continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.audit.write.sinks import Sink
    from dnp_guard.guard import Guard
    from dnp_guard.lab.evaluate.detectors.base import ImageDetector
    from dnp_guard.policy import Policy
    from dnp_guard.types import Action, Decision, Finding, Step
    from dnp_guard.vlm.base import Backend

PROJECT = "dnp_guard"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Decorator that marks a plugin's function as the implementation of the hook of the same name."""


@hookspec(firstresult=True)
def dnp_guard_attach(guard: Guard, target: Any) -> Callable[[], None] | None:
    """Attach the guard to a target that this plugin recognises.

    Called by ``guard.attach(target)``; the first plugin that does not return None attaches it.

    .. versionadded:: 0.1

    :param guard: the guard to attach.
    :param target: the target that the user passed: a pipeline, a sampler or a model.
    :return: a function that detaches the guard, or None if the target is not of this plugin's kind.
    :raises dnp_guard.CannotSteer: if it is of this plugin's kind but cannot be steered.
    """


@hookspec(firstresult=True)
def dnp_guard_vlm(spec: str) -> Backend | None:
    """Build the vision-language backend that a spec names.

    Called once, when a guard is constructed with ``vlm="kind:rest"``.

    .. versionadded:: 0.1

    :param spec: the whole spec, such as ``transformers:FOLDER``.
    :return: an object with ``ask(images, questions)``, or None if the spec is not of this plugin's kind.
    :raises dnp_guard.errors.VlmUnavailable: if it is of this kind but cannot be built.
    """


@hookspec(firstresult=True)
def dnp_guard_audit_sink(spec: str) -> Sink | None:
    """Open the audit sink that a spec names.

    Called once per sink, when a guard is constructed with ``audit=…``.

    .. versionadded:: 0.1

    :param spec: a path or ``kind:rest``.
    :return: an object with ``write(event)`` and ``close()``, or None if the spec is not of this plugin's kind.
    :raises dnp_guard.errors.AuditError: if it is of this kind but cannot be opened.
    """


@hookspec(firstresult=True)
def dnp_guard_detector(spec: str, policy: Policy) -> ImageDetector | None:
    """Build the detector that judges the images of an evaluation.

    Called once, by ``dnp-guard evaluate --detector kind:rest``; never by a guard, which must not know its judge.

    .. versionadded:: 0.1

    :param spec: the whole spec, such as ``nudenet``.
    :param policy: policy with the categories to look for, unless the detector has categories of its own.
    :return: an object with ``name``, ``version``, ``threshold``, ``categories`` and ``look(images)``, or None if the
        spec is not of this plugin's kind.
    :raises dnp_guard.errors.DnpGuardError: if it is of this kind but cannot be built.
    """


@hookspec
def dnp_guard_before_query(request: str, step: Step | None, images: Sequence[Image]) -> None:
    """Observe a query of the vision-language model just before it is sent.

    Called once per query, with the previews of every image of the batch.

    .. versionadded:: 0.1

    :param request: id of the generation.
    :param step: the sampler step, or None for the query of the finished images.
    :param images: RGB previews, in the order of the batch; read only.
    """


@hookspec
def dnp_guard_negative(
    findings: Sequence[Finding], words: Sequence[str], vocabulary: Sequence[str]
) -> Sequence[str] | None:
    """Add words to the negative prompt made from the findings in an image.

    Called once per image that is about to be steered. The policy's own words always stay; words outside its vocabulary
    are dropped and counted.

    .. versionadded:: 0.1

    :param findings: findings in the image.
    :param words: words that the policy injects for these findings.
    :param vocabulary: every word or phrase that this policy may inject.
    :return: words to add, or None.
    """


@hookspec
def dnp_guard_after_decision(request: str, image: int, step: Step | None, decision: Decision) -> Action | None:
    """Observe a decision, and optionally make it stricter.

    Called once per image after every answered query.

    .. versionadded:: 0.1

    :param request: id of the generation.
    :param image: index in the batch.
    :param step: the sampler step, or None for the query of the finished images.
    :param decision: decision about the image.
    :return: an action, which applies if it is stricter than the decision's, or None. If the decision has no negative
        prompt, ``steer`` has the effect of ``monitor``.
    """


@hookspec
def dnp_guard_degraded(request: str, reason: str, detail: Mapping[str, Any]) -> None:
    """Observe that the guard could not do its job.

    Called after the event was recorded and counted.

    .. versionadded:: 0.1

    :param request: id of the generation.
    :param reason: label of ``dnp_guard_degraded_total``.
    :param detail: fields of the ``degraded`` record.
    """
