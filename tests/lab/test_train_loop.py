import socket

import pytest
import torch
from torch import distributed, nn

from dnp_guard.lab.train import loop
from dnp_guard.lab.train.stages import Workshop

PLAN = loop.TrainingPlan("test", samples=48, batch=4, learning_rate=0.1, seed=5, warmup=1, ema=0.9)


class Fit:
    """A tiny training task, the fit of a line; it raises at a chosen step, as if its process were killed."""

    def __init__(self, stops_at=None):
        self.line = nn.Linear(2, 1)
        self.modules = [self.line]
        self.stops_at, self.steps = stops_at, 0

    def loss(self, draw, batch):
        self.steps += 1
        if self.steps == self.stops_at:
            raise KeyboardInterrupt
        x = torch.randn(batch, 2, generator=draw.torch)
        return (self.line(x) - x.sum(1, keepdim=True)).square().mean()


def run(checkpoint, task):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        loop.run_rank(0, 1, port, lambda _: task, PLAN, checkpoint)
    finally:
        torch.set_flush_denormal(False)
        if distributed.is_initialized():
            distributed.destroy_process_group()


def test_a_run_that_was_stopped_goes_on_exactly_as_it_would_have(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    whole, stopped, resumed = Fit(), Fit(stops_at=8), Fit()
    for task in (stopped, resumed):
        task.line.load_state_dict(whole.line.state_dict())
    run(tmp_path / "whole.pt", whole)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed.pt", stopped)
    run(tmp_path / "resumed.pt", resumed)
    assert resumed.steps == 12 - 7
    results = [torch.load(tmp_path / name, weights_only=True)["result"][0] for name in ("whole.pt", "resumed.pt")]
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_every_training_of_a_recipe_has_a_seed_of_its_own(tmp_path):
    seeds = [Workshop(tmp_path, tmp_path, training=number).planned(PLAN).seed for number in range(3)]
    assert seeds[0] == PLAN.seed
    assert len(set(seeds)) == 3
