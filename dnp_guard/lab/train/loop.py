"""Run every stage in one resumable training loop, on a GPU or on several single-thread CPU processes.

Two single-thread processes that average their gradients are much faster on two cores than one process of two threads.
Every step draws from a generator seeded by (seed, step, rank). So an interrupted run, when resumed, gives the same
weights as an uninterrupted one.
"""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import distributed, multiprocessing, nn

from dnp_guard.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

SAVE_EVERY_S = 60.0
_PRINT_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Length and settings of a training run.

    Attributes:
        name: label of the progress bar.
        samples: total number of training samples, over all processes.
        batch: number of samples per process and step.
        learning_rate: peak of the learning rate.
        seed: seed of the first weights and of all random numbers.
        hold: share of the run for which the learning rate stays at its peak; afterwards it falls along a cosine.
        warmup: number of first steps over which the learning rate rises linearly.
        weight_decay: weight decay of AdamW.
        ema: decay per step of the moving average of the weights, which is the result; None for the last weights.
    """

    name: str
    samples: int
    batch: int
    learning_rate: float
    seed: int
    hold: float = 0.0
    warmup: int = 100
    weight_decay: float = 1e-3
    ema: float | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """Random generators and device that a training task uses in one step, in one process."""

    torch: torch.Generator
    numpy: np.random.Generator
    device: torch.device


class TrainingTask(Protocol):
    """Modules that a stage trains, with their loss."""

    modules: list[nn.Module]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the scalar loss of one random batch."""


def fit(
    make_task: Callable[[torch.device], TrainingTask], plan: TrainingPlan, checkpoint: Path, processes: int
) -> list[dict[str, Tensor]]:
    """Train a task until its plan is done, from its checkpoint if there is one.

    Args:
        make_task: function that builds the task on a device; picklable, because every process calls it.
        plan: length and settings of the run.
        checkpoint: file of the training state, written once per minute and at the end.
        processes: number of CPU processes; ignored if there is a GPU.

    Returns:
        One state dict per module of the task, averaged if the plan has ``ema``.
    """
    if torch.cuda.is_available():
        run_rank(0, 1, 0, make_task, plan, checkpoint)
    elif not _finished(checkpoint):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        multiprocessing.spawn(run_rank, (processes, port, make_task, plan, checkpoint), nprocs=processes)
    return list(torch.load(checkpoint, weights_only=True)["result"])


def _finished(checkpoint: Path) -> bool:
    return checkpoint.exists() and "result" in torch.load(checkpoint, weights_only=True)


def run_rank(
    rank: int,
    world: int,
    port: int,
    make_task: Callable[[torch.device], TrainingTask],
    plan: TrainingPlan,
    checkpoint: Path,
) -> None:
    """Train as one of several processes; the process of rank 0 writes the checkpoint.

    Args:
        rank: rank of this process, from 0.
        world: number of processes.
        port: local port over which the processes connect.
        make_task: function that builds the task on a device.
        plan: length and settings of the run.
        checkpoint: file of the training state.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        distributed.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(plan.seed)
    task = make_task(device)
    state = _State(task, plan)
    steps = math.ceil(plan.samples / (plan.batch * world))
    start = state.load(checkpoint, device) if checkpoint.exists() else 0
    with _Report(plan.name, start, steps, silent=rank != 0) as report:
        for step in range(start, steps):
            seed = (plan.seed * 1_000_003 + step) * 64 + rank
            source = torch.Generator(device).manual_seed(seed)
            loss = task.loss(Draw(source, np.random.default_rng(seed), device), plan.batch)
            state.descend(loss, plan.learning_rate * _rate(step, steps, plan), world)
            if rank == 0:
                state.follow(step)
                report.done(step + 1, loss.item())
                if report.time_to_save():
                    state.save(checkpoint, step + 1)
    if rank == 0:
        state.save(checkpoint, steps, done=True)
    if device.type == "cpu":
        distributed.barrier()
        distributed.destroy_process_group()


class _State:
    """Weights, their moving average and the optimizer of one task."""

    def __init__(self, task: TrainingTask, plan: TrainingPlan) -> None:
        self._modules = task.modules
        self._ema = plan.ema
        self._parameters = [p for module in task.modules for p in module.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._parameters]
        self._optimizer = torch.optim.AdamW(
            self._parameters, plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True
        )

    def descend(self, loss: Tensor, rate: float, world: int) -> None:
        """Take one optimizer step at a learning rate, with the gradients averaged over all processes."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=False)
        loss.backward()
        if world > 1:
            _average_gradients(self._parameters, world)
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()

    def follow(self, step: int) -> None:
        """Update the moving average of the weights."""
        if self._ema is not None:
            decay = min(self._ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)

    def load(self, checkpoint: Path, device: torch.device) -> int:
        """Load a checkpoint, and return its number of finished steps."""
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        for module, weights in zip(self._modules, saved["modules"], strict=True):
            module.load_state_dict(weights)
        self._optimizer.load_state_dict(saved["optimizer"])
        self._average = saved["average"]
        return int(saved["step"])

    def save(self, checkpoint: Path, step: int, *, done: bool = False) -> None:
        """Write a checkpoint; if training is done, it also holds the resulting weights."""
        saved = {
            "step": step,
            "modules": [module.state_dict() for module in self._modules],
            "optimizer": self._optimizer.state_dict(),
            "average": self._average,
        }
        if done:
            if self._ema is not None:
                for parameter, mean in zip(self._parameters, self._average, strict=True):
                    parameter.data.copy_(mean)
            saved["result"] = [module.state_dict() for module in self._modules]
        with replacing(checkpoint) as draft:
            torch.save(saved, draft)


class _Report:
    """Report of the progress: a bar on a terminal, and elsewhere one line per half minute."""

    def __init__(self, name: str, start: int, steps: int, *, silent: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            console=Console(stderr=True),
            disable=silent,
        )
        self._task = self._progress.add_task(name, total=steps, completed=start, loss=math.nan)
        self._name, self._steps = name, steps
        self._loss = math.nan
        self._saved = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def done(self, step: int, loss: float) -> None:
        self._loss = loss if math.isnan(self._loss) else 0.99 * self._loss + 0.01 * loss
        self._progress.update(self._task, completed=step, loss=self._loss)
        if not self._progress.console.is_terminal and time.monotonic() - self._printed > _PRINT_EVERY_S:
            line = f"{self._name}: step {step} of {self._steps}, loss {self._loss:.4f}"
            self._progress.console.print(line, highlight=False)
            self._printed = time.monotonic()

    def time_to_save(self) -> bool:
        if time.monotonic() - self._saved < SAVE_EVERY_S:
            return False
        self._saved = time.monotonic()
        return True


def _rate(step: int, steps: int, plan: TrainingPlan) -> float:
    """Return the learning rate at a step as a share of its peak: it rises linearly, stays, and falls along a cosine."""
    done = step / steps
    falling = max(0.0, (done - plan.hold) / (1 - plan.hold))
    return min(1.0, (step + 1) / plan.warmup) * (0.5 + 0.5 * math.cos(math.pi * falling)) + 1e-3


def _average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world
    at = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        parameter.grad = gradient
        at += gradient.numel()
