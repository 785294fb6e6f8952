"""Measure the cost of the guard per generation: unguarded and guarded kinds of generation take turns in one run."""

from __future__ import annotations

import platform
import resource
import statistics
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.guard import Guard
from dnp_guard.lab.evaluate.clock import now
from dnp_guard.lab.evaluate.free_text import FreeTextBackend
from dnp_guard.lab.evaluate.intervals import bootstrap_ratio
from dnp_guard.lab.evaluate.methods import Task
from dnp_guard.lab.evaluate.methods.static import Static
from dnp_guard.lab.evaluate.methods.vl_dnp import RELEASED_SCALE, OneByOne, VlDnp
from dnp_guard.lab.evaluate.model import OPEN
from dnp_guard.lab.world.captions import Prompt
from dnp_guard.policy import Policy, load_policy, questions
from dnp_guard.telemetry import names
from dnp_guard.vlm.base import Backend
from dnp_guard.vlm.local.backend import TransformersBackend
from dnp_guard.vlm.scripted import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image


UNGUARDED, UNASKED, CLEAN, STEERING = "unguarded", "unqueried", "guarded-clean", "guarded-steering"
STATIC, RELEASED = "static-separate", "vl-dnp"
ANYWHERE = (UNGUARDED, UNASKED, CLEAN, STEERING)
"""Kinds that are timed with any pipeline."""
KINDS = (*ANYWHERE, STATIC, RELEASED)
_PROMPT = "a red circle at night"
_LOOKING = ("preview", "ask", "judge")
"""Stages of the guard that only a query has."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one kind of generation at one batch size.

    Attributes:
        kind: one of :data:`KINDS`.
        batch: number of images per generation.
        seconds: median over rounds of the time per generation, by :mod:`dnp_guard.lab.evaluate.clock`.
        gpu_seconds: median over rounds of the time between two events of the GPU's stream; None without a GPU.
        steps_per_second: steps of the sampler per second, for the whole batch.
        ratio: time divided by the unguarded time, both summed over rounds.
        ratio_ci95: 95 % interval of the ratio over resampled rounds.
        stages: wall time in seconds per stage of the guard in the last generation; empty without a guard.
        step_ratio: time of steps without a query, divided by unguarded time; None for kinds other than ``unqueried``.
        peak_mib: peak memory in MiB of the GPU, or of the process without one; None if unknown.
    """

    kind: str
    batch: int
    seconds: float
    gpu_seconds: float | None
    steps_per_second: float
    ratio: float
    ratio_ci95: tuple[float, float]
    stages: dict[str, float]
    step_ratio: float | None
    peak_mib: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class FixedAnswers(Backend):
    """VLM backend that runs a model to measure its cost, but returns fixed answers; its weights may be random.

    Args:
        backend: backend of the model; its answers are dropped.
        yes: whether the answer to the first question is "yes"; the answers to all others are "no".
    """

    name = "told"
    batches = True

    def __init__(self, backend: Backend, *, yes: bool) -> None:
        self._backend, self._yes = backend, yes

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Ask the model, and return the fixed answers, shape [images, questions]."""
        self._backend.ask(images, questions)
        return [[float(self._yes and not number) for number in range(len(questions))] for _ in images]


class _Released(VlDnp):
    """VL-DNP with a given backend in place of the task's."""

    def __init__(self, vlm: Backend) -> None:
        super().__init__()
        self._vlm = vlm

    def backend(self, task: Task) -> Backend:
        """Return the backend that the constructor got."""
        return self._vlm


def measure(
    pipe: Any,
    vlm: Any,
    *,
    batches: Sequence[int],
    steps: int,
    rounds: int,
    policy: Policy | None = None,
    guidance_scale: float = 5.0,
    advance: Callable[[], None] = lambda: None,
) -> list[Cost]:
    """Time every kind of generation at every batch size; in a round, every kind generates one batch.

    Args:
        pipe: the pipeline, on its device.
        vlm: folder of a VLM, a VLM with its processor, or a backend. Its answers are replaced by fixed ones.
        batches: batch sizes.
        steps: number of steps of the sampler.
        rounds: number of timed rounds; a warm-up round comes first.
        policy: policy of the guard; None for the shipped ``glyphs``.
        guidance_scale: guidance scale of the pipeline.
        advance: function that is called after every generation.

    Returns:
        One cost per kind and batch size.
    """
    costs: list[Cost] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, two threads that wait for each other are slower than one
    try:
        bench = _Bench(pipe, vlm, policy or load_policy("glyphs"), steps, guidance_scale)
        for batch in batches:
            costs += _measure_batch(bench, batch, rounds, advance)
    finally:
        torch.set_num_threads(threads)
    return costs


@dataclass(frozen=True, slots=True)
class _Bench:
    """Settings of the timing that all batch sizes share."""

    pipe: Any
    vlm: Any
    policy: Policy
    steps: int
    guidance_scale: float


def kinds_of(pipe: Any) -> tuple[str, ...]:
    """Return the kinds of generation to time with a pipeline; published methods need a class in :data:`OPEN`."""
    return KINDS if type(pipe).__name__ in OPEN else ANYWHERE


def _measure_batch(bench: _Bench, batch: int, rounds: int, advance: Callable[[], None]) -> list[Cost]:
    generate = _kinds(bench, batch)
    times: dict[str, list[tuple[float, float | None]]] = {kind: [] for kind in generate}
    peaks: dict[str, float | None] = {}
    stages: dict[str, dict[str, float]] = {}
    for number in range(rounds + 1):
        for kind, (guard, run) in generate.items():
            before = _stages(guard)
            reset = _reset_peak()
            seconds = _timed(run, bench.pipe.device.type)
            advance()
            if number:
                times[kind].append(seconds)
                peaks[kind] = _peak_mib() if reset else None
                stages[kind] = {name: (value - before[name]) for name, value in _stages(guard).items()}
    for guard, _ in generate.values():
        if guard is not None:
            guard.close()
    return [_cost(kind, batch, bench.steps, times, stages[kind], peaks[kind]) for kind in generate]


def machine(pipe: Any) -> dict[str, Any]:
    """Return a description of the machine, for the figures measured on it."""
    device = pipe.device
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": 1 if device.type == "cpu" else torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


class _Timed(TransformersBackend):
    """VLM backend that is only timed: its answers are not used, and its weights may be random."""

    least_mass = 0.0


def _kinds(bench: _Bench, batch: int) -> dict[str, tuple[Guard | None, Callable[[], object]]]:
    """Return, per kind of generation, its guard (or None) and the function that generates one batch."""
    pipe = bench.pipe
    timed = bench.vlm if isinstance(bench.vlm, Backend) else _Timed(bench.vlm, device=pipe.device)
    guards = {
        UNGUARDED: None,
        UNASKED: Guard(_first_step_only(bench.policy), vlm=ScriptedBackend({})),
        CLEAN: Guard(bench.policy, vlm=FixedAnswers(timed, yes=False)),
        STEERING: Guard(bench.policy, vlm=FixedAnswers(timed, yes=True)),
    }
    prompts = [_PROMPT] * batch

    def call(guard: Guard | None) -> object:
        noise = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        with guard.attached(pipe) if guard is not None else nullcontext():
            return pipe(prompts, num_inference_steps=bench.steps, guidance_scale=bench.guidance_scale, generator=noise)

    kinds: dict[str, tuple[Guard | None, Callable[[], object]]] = {
        kind: (guard, lambda guard=guard: call(guard))  # type: ignore[misc]  # a default that binds the loop's value
        for kind, guard in guards.items()
    }
    if RELEASED in kinds_of(pipe):
        terms = {question.term: question.text for question in questions(bench.policy)}
        freely = (
            OneByOne(timed, terms) if isinstance(bench.vlm, Backend) else FreeTextBackend(bench.vlm, device=pipe.device)
        )
        released, static = _Released(FixedAnswers(freely, yes=True)), Static(STATIC, RELEASED_SCALE)
        task = Task(pipe, bench.steps, bench.guidance_scale, tuple(terms))
        entries = [Prompt(text, "night", ()) for text in prompts]
        kinds[STATIC] = None, lambda: static.generate(task, range(batch), entries)
        kinds[RELEASED] = None, lambda: released.generate(task, range(batch), entries)
    return kinds


def _first_step_only(policy: Policy) -> Policy:
    """Return the policy with queries at the first step and of the finished image only, to time unqueried steps."""
    resolved = policy.resolved()
    queries = {name: value for name, value in resolved["queries"].items() if name != "of"}
    return Policy.model_validate({**resolved, "queries": {**queries, "steps": [0.0]}})


def _timed(run: Callable[[], object], device: str) -> tuple[float, float | None]:
    """Run a function, and return its seconds by the clock and, on a GPU, between two events of the GPU's stream."""
    if device != "cuda":
        begin = now(device)
        run()
        return now(device) - begin, None
    begin, events = now(device), [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    run()
    events[1].record()
    seconds = now(device) - begin  # `now` waits for the GPU
    return seconds, events[0].elapsed_time(events[1]) / 1000


def _cost(
    kind: str,
    batch: int,
    steps: int,
    times: dict[str, list[tuple[float, float | None]]],
    stages: dict[str, float],
    peak: float | None,
) -> Cost:
    own, base = ([seconds for seconds, _ in times[name]] for name in (kind, UNGUARDED))
    on_gpu = [gpu for _, gpu in times[kind] if gpu is not None]
    looking = sum(stages.get(name, 0.0) for name in _LOOKING)
    return Cost(
        kind,
        batch,
        statistics.median(own),
        statistics.median(on_gpu) if on_gpu else None,
        steps / statistics.median(own),
        sum(own) / sum(base),
        bootstrap_ratio(own, base),
        {name: value for name, value in stages.items() if value},
        (statistics.median(own) - looking) / statistics.median(base) if kind == UNASKED else None,
        peak,
    )


def _stages(guard: Guard | None) -> dict[str, float]:
    """Return the seconds that a guard has spent in every stage so far."""
    if guard is None:
        return {}
    value = guard.metrics.registry.get_sample_value
    return {stage: value(f"{names.OVERHEAD}_sum", {names.STAGE: stage}) or 0.0 for stage in names.STAGES}


def _reset_peak() -> bool:
    """Reset the measured peak of memory use; return False if this system cannot do that."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_mib() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**20
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next((line for line in lines if line.startswith("VmHWM:")), None)
    kib = int(peak.split()[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 1024


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or "unknown"
