"""What the guard costs a generation: every kind of generation in turn, round by round, in one run."""

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
"""What is timed of any pipeline."""
KINDS = (*ANYWHERE, STATIC, RELEASED)
_PROMPT = "a red circle at night"
_LOOKING = ("preview", "ask", "judge")
"""Stages that only a look has."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of generation at one size of batch.

    Attributes:
        kind: one of :data:`KINDS`.
        batch: images.
        seconds: of a whole generation, the median over rounds, by :mod:`dnp_guard.lab.evaluate.clock`.
        gpu_seconds: between two events of the GPU's stream, the median; None without one.
        steps_per_second: of the sampler, for the whole batch at once.
        ratio: to unguarded, of the sums over rounds.
        ratio_ci95: its interval over resampled rounds.
        stages: seconds of the wall in each stage of the guard in the last generation; empty without one.
        step_ratio: what a step at which nothing is asked costs, as a ratio to unguarded; of ``unqueried`` only.
        peak_mib: the most memory in use: of the GPU, or of the process where there is none; None where unknown.
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
        """JSON values."""
        return asdict(self)


class Told(Backend):
    """Asks a model, for what that costs, and answers as it is told to: the weights may be random.

    Args:
        backend: who is asked.
        yes: whether the first question is answered with yes; every other with no.
    """

    name = "told"
    batches = True

    def __init__(self, backend: Backend, *, yes: bool) -> None:
        self._backend, self._yes = backend, yes

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """The told answers, shape [images, questions]."""
        self._backend.ask(images, questions)
        return [[float(self._yes and not number) for number in range(len(questions))] for _ in images]


class _Released(VlDnp):
    def __init__(self, vlm: Backend) -> None:
        super().__init__()
        self._told = vlm

    def backend(self, task: Task) -> Backend:
        """The given one."""
        return self._told


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
    """Time every kind at every size of batch; a round generates each of them once, in turn.

    Args:
        pipe: the pipeline, on its device.
        vlm: a folder, a model and its processor, or a backend.
        batches: sizes.
        steps: of the sampler.
        rounds: how often, after one that does not count.
        policy: the guard's; the shipped ``glyphs`` otherwise. What is seen is told, and not the model's own answer.
        guidance_scale: of the pipeline.
        advance: hears of every generation.
    """
    found: list[Cost] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on a busy machine are slower than one
    try:
        of = _Bench(pipe, vlm, policy or load_policy("glyphs"), steps, guidance_scale)
        for batch in batches:
            found += _measure_batch(of, batch, rounds, advance)
    finally:
        torch.set_num_threads(threads)
    return found


@dataclass(frozen=True, slots=True)
class _Bench:
    """What is timed, whatever the batch."""

    pipe: Any
    vlm: Any
    policy: Policy
    steps: int
    guidance_scale: float


def kinds_of(pipe: Any) -> tuple[str, ...]:
    """What is timed of a pipeline: published methods are put into the sampling of some only."""
    return KINDS if type(pipe).__name__ in OPEN else ANYWHERE


def _measure_batch(of: _Bench, batch: int, rounds: int, advance: Callable[[], None]) -> list[Cost]:
    generate = _kinds(of, batch)
    times: dict[str, list[tuple[float, float | None]]] = {kind: [] for kind in generate}
    peaks: dict[str, float | None] = {}
    stages: dict[str, dict[str, float]] = {}
    for number in range(rounds + 1):
        for kind, (guard, run) in generate.items():
            before = _stages(guard)
            reset = _reset_peak()
            seconds = _timed(run, of.pipe.device.type)
            advance()
            if number:
                times[kind].append(seconds)
                peaks[kind] = _peak_mib() if reset else None
                stages[kind] = {name: (value - before[name]) for name, value in _stages(guard).items()}
    for guard, _ in generate.values():
        if guard is not None:
            guard.close()
    return [_cost(kind, batch, of.steps, times, stages[kind], peaks[kind]) for kind in generate]


def machine(pipe: Any) -> dict[str, Any]:
    """What the figures were measured on."""
    device = pipe.device
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": 1 if device.type == "cpu" else torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


class _Asked(TransformersBackend):
    """One whose answers are not used, and whose weights may be random: how long they take is what is measured."""

    least_mass = 0.0


def _kinds(of: _Bench, batch: int) -> dict[str, tuple[Guard | None, Callable[[], object]]]:
    pipe = of.pipe
    asked = of.vlm if isinstance(of.vlm, Backend) else _Asked(of.vlm, device=pipe.device)
    guards = {
        UNGUARDED: None,
        UNASKED: Guard(_first_step_only(of.policy), vlm=ScriptedBackend({})),
        CLEAN: Guard(of.policy, vlm=Told(asked, yes=False)),
        STEERING: Guard(of.policy, vlm=Told(asked, yes=True)),
    }
    prompts = [_PROMPT] * batch

    def call(guard: Guard | None) -> object:
        noise = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        with guard.attached(pipe) if guard is not None else nullcontext():
            return pipe(prompts, num_inference_steps=of.steps, guidance_scale=of.guidance_scale, generator=noise)

    found: dict[str, tuple[Guard | None, Callable[[], object]]] = {
        kind: (guard, lambda guard=guard: call(guard))  # type: ignore[misc]  # a default that binds the loop's value
        for kind, guard in guards.items()
    }
    if RELEASED in kinds_of(pipe):
        terms = {question.term: question.text for question in questions(of.policy)}
        freely = OneByOne(asked, terms) if isinstance(of.vlm, Backend) else FreeTextBackend(of.vlm, device=pipe.device)
        released, static = _Released(Told(freely, yes=True)), Static(STATIC, RELEASED_SCALE)
        task = Task(pipe, of.steps, of.guidance_scale, tuple(terms))
        wanted = [Prompt(text, "night", ()) for text in prompts]
        found[STATIC] = None, lambda: static.generate(task, range(batch), wanted)
        found[RELEASED] = None, lambda: released.generate(task, range(batch), wanted)
    return found


def _first_step_only(policy: Policy) -> Policy:
    """A policy that looks at the first step and the finished image, so that the guard only watches the others."""
    resolved = policy.resolved()
    queries = {name: value for name, value in resolved["queries"].items() if name != "of"}
    return Policy.model_validate({**resolved, "queries": {**queries, "steps": [0.0]}})


def _timed(run: Callable[[], object], device: str) -> tuple[float, float | None]:
    """Seconds by the clock, and those between two events of the GPU's stream where there is one."""
    if device != "cuda":
        begin = now(device)
        run()
        return now(device) - begin, None
    begin, events = now(device), [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    run()
    events[1].record()
    seconds = now(device) - begin  # which waits for the GPU
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
    """Seconds in each stage so far."""
    if guard is None:
        return {}
    value = guard.metrics.registry.get_sample_value
    return {stage: value(f"{names.OVERHEAD}_sum", {names.STAGE: stage}) or 0.0 for stage in names.STAGES}


def _reset_peak() -> bool:
    """Begin a new peak of memory; False where this system has none that can be reset."""
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
