"""Turn the options of ``dnp-guard evaluate`` into a plan, and refuse an impossible one before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console

from dnp_guard.cli.evaluate_paper import as_published
from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.design import ASKING, GROWN, Column, EvaluationPlan, columns_of
from dnp_guard.lab.evaluate.detectors.plugin import KINDS, who
from dnp_guard.lab.evaluate.external_prompts import mapping, prompt_set
from dnp_guard.lab.evaluate.methods import applicable
from dnp_guard.lab.evaluate.methods.base import asked
from dnp_guard.lab.evaluate.model import measured
from dnp_guard.policy import load_policy
from dnp_guard.policy.force.admission import refuse_backend
from dnp_guard.vlm.plugin import look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.cli.evaluate_options import Compared, Drawn
    from dnp_guard.lab.evaluate.model import Model

_QUICK = 16
_BATCH, _OWN_BATCH = 16, 4
_DETECTOR = "detector:"
"""Prefix of backends that know few terms and load fast, so that they are checked before images are generated."""
_ALL, _GLYPHS, _OWN_POLICY, _SETS = "all", "glyphs", "paper-nudity", "attack,benign"


def planned(compared: Compared, drawn: Drawn) -> EvaluationPlan:
    """Make the plan of an evaluation from the options of the command.

    Raises:
        DnpGuardError: an option names something that does not exist, or options conflict.
    """
    if compared.paper:
        compared, drawn = as_published(compared, drawn)
    model = measured(compared.model or _GLYPHS, steps=drawn.steps, guidance=drawn.guidance, sampler=drawn.sampler)
    policy = load_policy(drawn.policy or (_GLYPHS if model.embedded else _OWN_POLICY))
    named = _words(_ALL if compared.methods is None else compared.methods)
    columns = columns_of(
        applicable(named, model.refused),
        _numbers(compared.scales),
    )
    names = {column.method for column in columns}
    grown = [Column(name, None, k) for name in GROWN if name in names for k in range(1, len(policy.categories) + 1)]
    vlm, detector = _asked(model, drawn, columns), _judge(model, drawn)
    _check(vlm, detector)
    if vlm.startswith(_DETECTOR) and names.intersection(ASKING):
        refuse_backend(policy, asked(vlm))
    if not compared.sets and not model.embedded:
        raise DnpGuardError("there are no prompts", hint="Name files of prompts with --prompts.")
    lists = [prompt_set(prompts, mapping(compared.columns)) for prompts in _words(compared.sets or _SETS)]
    _require_own_names([prompts.name for prompts in lists])
    n = compared.n or (_QUICK if compared.quick else None)
    for prompts in lists:
        if prompts.assumed:
            Console(stderr=True).print(prompts.assumed, highlight=False, markup=False)
    return EvaluationPlan(
        {prompts.name: prompts.entries[:n] for prompts in lists},
        columns,
        () if compared.grow == "no" or not model.embedded else tuple(grown),
        policy,
        drawn.seed,
        model.steps,
        model.guidance_scale,
        drawn.batch or (_BATCH if model.embedded else _OWN_BATCH),
        model=model.name,
        detector=detector,
        clip=drawn.clip,
        keep_images=drawn.keep_images or not model.embedded,
        only_grown=compared.grow == "only",
        vlm=vlm,
        sampler=drawn.sampler,
        files={prompts.name: prompts.file for prompts in lists if prompts.file},
        revision=model.revision,
        judged_from="" if compared.rejudge is None else str(compared.rejudge),
    )


def _asked(model: Model, drawn: Drawn, columns: Sequence[Column]) -> str:
    if drawn.vlm is not None:
        return drawn.vlm
    if model.embedded:
        return _GLYPHS
    if asking := [column.method for column in columns if column.method in ASKING]:
        raise DnpGuardError(
            f"the method {asking[0]!r} queries a vision-language model, and none is named",
            hint="Name one with --vlm, such as transformers:ID_OR_FOLDER or detector:nudenet.",
        )
    return ""


def _judge(model: Model, drawn: Drawn) -> str:
    if drawn.detector is not None:
        return drawn.detector
    if model.embedded:
        return _GLYPHS
    raise DnpGuardError("no detector is named", hint=f"Name one with --detector: {', '.join(KINDS[1:])}.")


def _check(vlm: str, detector: str) -> None:
    if vlm:
        look_up(vlm)
    if detector != _GLYPHS and who(detector) == who(vlm):
        raise DnpGuardError(
            f"the detector {detector!r} is also the guard's backend, so the guard would judge itself",
            hint="Name another --detector, or another --vlm.",
        )


def _require_own_names(names: Sequence[str]) -> None:
    """Check that no two prompt sets have the same name, since the results are listed by name."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DnpGuardError(
            f"several files of prompts are named {twice[0]!r}, but the results are listed by name",
            hint="Rename all but one of them.",
        )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise typer.BadParameter(f"--scales {text!r}: write numbers such as 5,10,15.") from error
