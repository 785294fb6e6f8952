"""Ranks that draw one image together agree: two processes, joined by gloo."""

import multiprocessing

import pytest
import torch

from dnp_guard import CannotSteer
from dnp_guard.hosts.engines.ranks import Ranks


class Operations:
    """Operations in which both ranks take part, with a record of those that ran."""

    def __init__(self):
        self.ran = []

    def evaluate(self, latents):
        self.ran.append(latents.tolist())

    def fail(self):
        raise ValueError


def outcome(ranks, operations, decide):
    """Return what a rank gets, or the error that it raises."""
    try:
        return ranks.together(decide, operations)
    except (CannotSteer, ZeroDivisionError) as error:
        return type(error).__name__


def rank(number, file):
    """Run one of two ranks; the second decides otherwise, if it is asked at all."""
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=number, world_size=2)
    ranks, operations = Ranks(), Operations()

    def decides():
        ranks.announce("fail")
        ranks.announce("evaluate", torch.ones(2))
        operations.evaluate(torch.ones(2))
        return f"the verdict of rank {number}"

    made = [outcome(ranks, operations, decide) for decide in (decides, lambda: 1 / 0, lambda: number)]
    torch.distributed.destroy_process_group()
    return made, operations.ran


def second(file, answers):
    """Run the second rank, in a process of its own."""
    answers.put(rank(1, file))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Run both ranks; return what they got, and the operations that they ran."""
    spawning = multiprocessing.get_context("spawn")
    answers, file = spawning.Queue(), tmp_path_factory.mktemp("ranks") / "group"
    process = spawning.Process(target=second, args=(file, answers))
    process.start()
    made = rank(0, file), answers.get(timeout=120)
    process.join()
    return made


def test_both_ranks_get_the_decision_of_the_first(both):
    assert both[0][0][0] == both[1][0][0] == "the verdict of rank 0"


def test_an_operation_that_the_first_rank_announces_runs_in_both(both):
    assert both[0][1] == both[1][1] == [[1.0, 1.0]]


def test_an_error_of_the_first_rank_refuses_the_request_in_both(both):
    assert both[0][0][1] == "ZeroDivisionError"
    assert both[1][0][1] == "CannotSteer"


def test_the_ranks_go_on_together_after_an_error(both):
    assert both[0][0][2] == both[1][0][2] == 0


def test_one_rank_alone_decides_by_itself():
    assert Ranks().together(lambda: "its own verdict", None) == "its own verdict"
