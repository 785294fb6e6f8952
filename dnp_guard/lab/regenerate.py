"""Makes a recorded generation again, from the same seed under the same policy, and sees whether the decisions are.

The record does not hold the prompt, so it has to be supplied, and is checked against what the record keeps of it. Of
the user's own negative prompt it keeps nothing: supplied or not, it cannot be checked.
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
    """A finished generation, as a log tells it.

    Attributes:
        request: its id.
        started: its first record.
        records: all of them.
    """

    request: str
    started: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]

    @property
    def digest(self) -> str:
        """Of the policy that it was made under."""
        return str(self.started["policy"]["digest"])


@dataclass(frozen=True, slots=True)
class Regenerated:
    """What came of making a generation again.

    Attributes:
        images: in the batch.
        looks: recorded, one an image.
        partings: where images part from the record; none where every decision is the same.
        furthest: the largest difference between two probabilities before that.
    """

    images: int
    looks: int
    partings: tuple[Parting, ...]
    furthest: float


def recorded(records: Iterable[Mapping[str, Any]], request: str) -> Recorded:
    """Find a generation in a log.

    Raises:
        AuditError: it is not there, did not finish, or its record does not say what it takes to make it again.
    """
    mine = tuple(record for record in records if record.get("request") == request)
    started = next((record for record in mine if record["event"] == RequestStarted.name), None)
    if started is None:
        raise AuditError(f"no such generation: {request}", hint="`dnp-guard audit show` lists them.")
    if not any(record["event"] == RequestFinished.name for record in mine):
        raise AuditError(f"generation {request} did not finish", hint="Only finished ones are made again.")
    if "latents" in started.get("run", {}):
        raise AuditError(
            f"generation {request} began with latents that the call brought, and the record keeps their hash alone",
            hint="A call is repeatable that is given a generator in their place.",
        )
    missing = [key for key in ("seed", "steps", "guidance_scale") if key not in started.get("run", {})]
    if missing:
        raise AuditError(
            f"the record of {request} has no {missing[0]}", hint="A call is repeatable that is given a generator."
        )
    return Recorded(request, started, mine)


def matching_prompts(of: Recorded, text: str, key: bytes) -> list[str]:
    """The prompts of a generation, once they are seen to be those of the record.

    Args:
        of: the generation.
        text: of one prompt; of several, a line each.
        key: of the hashes of the log.

    Raises:
        AuditError: they are others, or the record keeps nothing that they could be checked by.
    """
    kept = of.started.get("prompt", {})
    how = next(iter(kept), None)
    if how is None:
        raise AuditError(
            "the record keeps nothing of the prompt that a file could be checked by",
            hint="Policies with `audit: {prompt: hmac}` do.",
        )
    wanted = kept[how] if isinstance(kept[how], list) else [kept[how]]
    prompts = [text.removesuffix("\n")] if len(wanted) == 1 else text.splitlines()
    if len(prompts) != len(wanted):
        raise AuditError(
            f"the record has {len(wanted)} prompts and the file {len(prompts)}", hint="Write one prompt a line."
        )
    for number, (prompt, value) in enumerate(zip(prompts, wanted, strict=True), start=1):
        if prompt_field(prompt, how, key)[how] != value:
            raise AuditError(
                f"prompt {number} is not the one of the record", hint="It has to be the same to the last sign."
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
    """Make a recorded generation again and compare the decisions. No image of it is kept.

    Args:
        of: the generation.
        prompts: from :func:`matching_prompts`.
        pipe: a pipeline of the same model.
        policy: of the same digest.
        vlm: the same model.
        negative: the user's own negative prompt, where the call was given one.
        probe: the same file, where the policy skips looks by one.

    Raises:
        AuditError: policy, pipeline or model are others, or something sensitive was seen.
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
                prompt=_each(prompts),
                num_inference_steps=run["steps"],
                guidance_scale=run["guidance_scale"],
                generator=_generators(run["seed"]),
                negative_prompt=None if negative is None else _each([negative] * len(prompts)),
                **dict(zip(("height", "width"), run.get("size", ()), strict=False)),
            )
        report = guard.last
    before, now = trail(of.records, of.request), trail(sink.records, report.request if report is not None else "")
    looks = sum(record["event"] == QueryAnswered.name for record in of.records)
    return Regenerated(len(before), looks, partings(before, now), furthest(before, now))


def _each(texts: Sequence[str]) -> str | list[str]:
    """Texts as a pipeline takes them: of one image the text itself."""
    return list(texts) if len(texts) > 1 else texts[0]


def _generators(seeds: int | Sequence[int]) -> Any:
    """Create the random generators of the call on the CPU, where they give the same numbers on every machine."""
    if isinstance(seeds, int):
        return torch.Generator().manual_seed(seeds)
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _refuse_sensitive(of: Recorded, policy: Policy) -> None:
    sensitive = {category.id for category in policy.categories if category.sensitive}
    seen = {finding["category"] for record in of.records for finding in record.get("findings", [])}
    if seen & sensitive:
        raise AuditError(
            f"generation {of.request} showed something of a sensitive category, and is not made again",
            hint="The record itself says all that may be known of it.",
        )


def _refuse_other(what: str, before: object, now: object) -> None:
    if before != now:
        raise AuditError(
            f"the {what} of the record is {before}, and this one is {now}", hint="Name the one it was made with."
        )
