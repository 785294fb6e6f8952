"""The hooks a plugin may implement, with :data:`dnp_guard.hookimpl`.

A plugin may make a decision stricter, never looser. An implementation that raises is counted in
``dnp_guard_degraded_total{reason="plugin_error"}`` and skipped; it stops nothing.
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
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@hookspec(firstresult=True)
def dnp_guard_attach(guard: Guard, target: Any) -> Callable[[], None] | None:
    """Attach the guard to a target that this plugin recognises.

    Called by ``guard.attach(target)``; the first plugin that does not return None has attached it.

    .. versionadded:: 0.1

    :param guard: the guard to attach.
    :param target: a pipeline, a sampler, a model: whatever the user passed.
    :return: a function that detaches again, or None where the target is not of this plugin's kind.
    :raises dnp_guard.CannotSteer: where it is of this plugin's kind and cannot be steered.
    """


@hookspec(firstresult=True)
def dnp_guard_vlm(spec: str) -> Backend | None:
    """Build the vision-language backend that a spec names.

    Called once, when a guard is constructed with ``vlm="kind:rest"``.

    .. versionadded:: 0.1

    :param spec: the whole spec, such as ``transformers:FOLDER``.
    :return: an object with ``ask(images, questions)``, or None where the spec is not of this plugin's kind.
    :raises dnp_guard.errors.VlmUnavailable: where it is of this kind and cannot be built.
    """


@hookspec(firstresult=True)
def dnp_guard_audit_sink(spec: str) -> Sink | None:
    """Open the audit sink that a spec names.

    Called once for each sink, when a guard is constructed with ``audit=…``.

    .. versionadded:: 0.1

    :param spec: a path or ``kind:rest``.
    :return: an object with ``write(event)`` and ``close()``, or None where the spec is not of this plugin's kind.
    :raises dnp_guard.errors.AuditError: where it is of this kind and cannot be opened.
    """


@hookspec(firstresult=True)
def dnp_guard_detector(spec: str, policy: Policy) -> ImageDetector | None:
    """Build the detector that judges the images of an evaluation.

    Called once, by ``dnp-guard evaluate --detector kind:rest``; never by a guard, which must not see what judges it.

    .. versionadded:: 0.1

    :param spec: the whole spec, such as ``nudenet``.
    :param policy: whose categories a detector that has none of its own looks for.
    :return: an object with ``name``, ``version``, ``threshold``, ``categories`` and ``look(images)``, or None where the
        spec is not of this plugin's kind.
    :raises dnp_guard.errors.DnpGuardError: where it is of this kind and cannot be built.
    """


@hookspec
def dnp_guard_before_query(request: str, step: Step | None, images: Sequence[Image]) -> None:
    """Look on just before the vision-language model is asked.

    Called once for each look, with the previews of every image of the batch.

    .. versionadded:: 0.1

    :param request: the id of the generation.
    :param step: the sampler step, or None for the final look.
    :param images: the previews, RGB, in the order of the batch; read only.
    """


@hookspec
def dnp_guard_negative(
    findings: Sequence[Finding], words: Sequence[str], vocabulary: Sequence[str]
) -> Sequence[str] | None:
    """Add words to the negative made from an image's findings.

    Called for each image for which something is to be steered away. What the policy itself injects always stays;
    words outside the policy's vocabulary are dropped and counted.

    .. versionadded:: 0.1

    :param findings: what was seen in the image.
    :param words: what the policy injects for it.
    :param vocabulary: every word or phrase that this policy may inject.
    :return: words to add, or None.
    """


@hookspec
def dnp_guard_after_decision(request: str, image: int, step: Step | None, decision: Decision) -> Action | None:
    """Look at a decision, and make it stricter where needed.

    Called for each image after each answered look.

    .. versionadded:: 0.1

    :param request: the id of the generation.
    :param image: index in the batch.
    :param step: the sampler step, or None for the final look.
    :param decision: what the judge said.
    :return: an action; it counts where it is stricter than the decision's. ``steer`` without a negative monitors.
    """


@hookspec
def dnp_guard_degraded(request: str, reason: str, detail: Mapping[str, Any]) -> None:
    """Hear that the guard could not do its job at some step.

    Called after the event was recorded and counted.

    .. versionadded:: 0.1

    :param request: the id of the generation.
    :param reason: the label of ``dnp_guard_degraded_total``.
    :param detail: fields of the ``degraded`` record.
    """
