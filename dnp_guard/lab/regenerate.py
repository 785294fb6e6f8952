"""Regenerate a recorded generation from its seed and policy, and compare the decisions with the record.

The caller supplies the prompt, which is checked against the ``prompt`` field of the record: a hash, unless the policy
says otherwise. The record holds nothing about the user's own negative prompt, so a supplied one cannot be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.audit.events import QueryAnswered, RequestFinished, RequestStarted
from dnp_guard.audit.redact import prompt_field
from dnp_guard.audit.write.sinks import MemorySink
from dnp_guard.errors import AuditError
from dnp_guard.guard import Guard
from dnp_guard.policy.rehearsal.divergence import Parting, furthest, partings, trail

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dnp_guard.policy import Policy
    from dnp_guard.vlm.base import Backend


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished generation, as recorded in an audit log.

    Attributes:
        request: id of the generation.
        started: its ``request.started`` record.
        records: all its records, in the order of the log.
    """

    request: str
    started: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]

    @property
    def digest(self) -> str:
        """Digest of the policy that the generation ran under."""
        return str(self.started["policy"]["digest"])


@dataclass(frozen=True, slots=True)
class Regenerated:
    """Result of regenerating a recorded generation.

    Attributes:
        images: number of images in the batch.
        looks: number of answered queries in the record, one per image and step.
        partings: first difference from the record, per image that has one; empty if every decision is the same.
        furthest: largest difference between a probability and the recorded one, before any such difference.
    """

    images: int
    looks: int
    partings: tuple[Parting, ...]
    furthest: float


def recorded(records: Iterable[Mapping[str, Any]], request: str) -> Recorded:
    """Find a finished generation in the records of an audit log.

    Raises:
        AuditError: if the generation is not in the log, did not finish, started from latents of the caller, or has no
            seed, steps or guidance scale in its record.
    """
    mine = tuple(record for record in records if record.get("request") == request)
    started = next((record for record in mine if record["event"] == RequestStarted.name), None)
    if started is None:
        raise AuditError(f"no such generation: {request}", hint="`dnp-guard audit show` lists them.")
    if not any(record["event"] == RequestFinished.name for record in mine):
        raise AuditError(f"generation {request} did not finish", hint="Only a finished generation can be regenerated.")
    if "latents" in started.get("run", {}):
        raise AuditError(
            f"generation {request} began with latents given to the call, and the record keeps only their hash",
            hint="A call is repeatable if it is given a generator in place of latents.",
        )
    missing = [key for key in ("seed", "steps", "guidance_scale") if key not in started.get("run", {})]
    if missing:
        raise AuditError(
            f"the record of {request} has no {missing[0]}", hint="A call is repeatable if it is given a generator."
        )
    return Recorded(request, started, mine)


def matching_prompts(of: Recorded, text: str, key: bytes) -> list[str]:
    """Read the prompts of a generation from a text, and check them against the record.

    Args:
        of: the recorded generation.
        text: the prompt; for a batch of several images, one prompt per line.
        key: key of the log's prompt hashes.

    Returns:
        One prompt per image.

    Raises:
        AuditError: if a prompt differs from the recorded one, or if the record keeps nothing to check it against.
    """
    fingerprints = of.started.get("prompt", {})
    how = next(iter(fingerprints), None)
    if how is None:
        raise AuditError(
            "the record keeps nothing about the prompt that a file could be checked against",
            hint="A policy with `audit: {prompt: hmac}` keeps a hash of the prompt.",
        )
    expected = fingerprints[how] if isinstance(fingerprints[how], list) else [fingerprints[how]]
    prompts = [text.removesuffix("\n")] if len(expected) == 1 else text.splitlines()
    if len(prompts) != len(expected):
        raise AuditError(
            f"the record has {len(expected)} prompts and the file {len(prompts)}", hint="Write one prompt per line."
        )
    for number, (prompt, value) in enumerate(zip(prompts, expected, strict=True), start=1):
        if prompt_field(prompt, how, key)[how] != value:
            raise AuditError(
                f"prompt {number} is not the one in the record", hint="It has to be the same to the last character."
            )
    return prompts


def regenerate(
    of: Recorded,
    prompts: Sequence[str],
    pipe: Any,
    policy: Policy,
    vlm: str | Backend,
    *,
    negative: str | None = None,
    probe: str | Path | None = None,
) -> Regenerated:
    """Regenerate a recorded generation, and compare its decisions with the record; the new images are dropped.

    Args:
        of: the recorded generation.
        prompts: prompts from :func:`matching_prompts`.
        pipe: pipeline of the recorded model.
        policy: policy with the recorded digest.
        vlm: the recorded vision-language model, or its spec.
        negative: the user's own negative prompt, if the recorded call had one.
        probe: the recorded guard's probe, if the policy has ``queries.skip_probe``.

    Raises:
        AuditError: if the policy, the pipeline, the scheduler or the vision-language model is not the recorded one,
            or if the record has a finding of a sensitive category.
    """
    _refuse_sensitive(of, policy)
    _refuse_other("policy digest", of.digest, policy.digest)
    _refuse_other("pipeline", of.started["host"].get("target"), type(pipe).__name__)
    run = of.started["run"]
    _refuse_other("scheduler", run.get("scheduler"), type(pipe.scheduler).__name__)
    sink = MemorySink()
    with Guard(policy, vlm=vlm, audit=sink, probe=probe) as guard:
        _refuse_other("vision-language model", of.started["vlm"], sink.records[0]["vlm"])
        with guard.attached(pipe):
            pipe(
                prompt=_argument(prompts),
                num_inference_steps=run["steps"],
                guidance_scale=run["guidance_scale"],
                generator=_generators(run["seed"]),
                negative_prompt=None if negative is None else _argument([negative] * len(prompts)),
                **dict(zip(("height", "width"), run.get("size", ()), strict=False)),
            )
        report = guard.last
    before, now = trail(of.records, of.request), trail(sink.records, report.request if report is not None else "")
    looks = sum(record["event"] == QueryAnswered.name for record in of.records)
    return Regenerated(len(before), looks, partings(before, now), furthest(before, now))


def _argument(texts: Sequence[str]) -> str | list[str]:
    """Return texts in the form that a pipeline takes: one text as it is, several as a list."""
    return list(texts) if len(texts) > 1 else texts[0]


def _generators(seeds: int | Sequence[int]) -> Any:
    """Create the call's random generators; on the CPU, their numbers are the same on every machine."""
    if isinstance(seeds, int):
        return torch.Generator().manual_seed(seeds)
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _refuse_sensitive(of: Recorded, policy: Policy) -> None:
    sensitive = {category.id for category in policy.categories if category.sensitive}
    seen = {finding["category"] for record in of.records for finding in record.get("findings", [])}
    if seen & sensitive:
        raise AuditError(
            f"generation {of.request} showed a sensitive category, so it is not regenerated",
            hint="The record holds all that may be known about it.",
        )


def _refuse_other(what: str, before: object, now: object) -> None:
    if before != now:
        raise AuditError(
            f"the {what} of the record is {before}, and this one is {now}", hint=f"Give the recorded {what}."
        )
