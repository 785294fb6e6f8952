"""Processes (ranks) that generate an image together agree on every decision, or generate nothing.

The tests run two processes, joined by PyTorch's backend gloo.
"""

import multiprocessing
from datetime import timedelta

import pytest
import torch

from dnp_guard import CannotSteer
from dnp_guard.hosts.engines.ranks import Ranks

OUT_OF_STEP = "the ranks are out of step"
SHORT = timedelta(seconds=2)


class Operations:
    """Operations that both ranks must run together.

    Args:
        number: number of this rank.
        ranks: the link between the ranks.

    Attributes:
        ran: arguments of the evaluations that this rank ran.
    """

    def __init__(self, number, ranks):
        self.number, self.ranks, self.ran = number, ranks, []

    def evaluate(self, latents):
        self.ran.append(latents.tolist())

    def fail(self):
        raise ValueError

    def fail_in(self, number):
        if self.number == number:
            raise MemoryError

    def draw(self, failing):
        """Generate again, which needs one joint decision; the rank ``failing`` fails before it."""
        self.fail_in(failing)
        self.ranks.together(lambda: None, self)


def outcome(run):
    """Return the result of a call, or the error that it raises."""
    try:
        return run()
    except (CannotSteer, MemoryError, ZeroDivisionError) as error:
        return str(error) or type(error).__name__


def attempted(operations, *arguments):
    """Run an operation in both ranks, and go on after an error, as the guard does; return how it ended."""
    try:
        operations.ranks.run(operations, *arguments)
    except (CannotSteer, MemoryError, ValueError):
        return "missed"
    return "decided"


def ordinary(ranks, operations):
    """Make a joint decision with two operations, of which the first fails in both ranks; return the decision."""

    def decide():
        attempted(operations, "fail")
        ranks.run(operations, "evaluate", torch.ones(2))
        return f"the verdict of rank {operations.number}"

    return ranks.together(decide, operations)


def divided(ranks, operations):
    return ranks.together(lambda: 1 / 0, operations)


def between(failing):
    """Return a function that runs a request in which the rank ``failing`` fails in the pipeline's own code."""

    def drawn(ranks, operations):
        ranks.together(lambda: None, operations)
        operations.fail_in(failing)
        return ranks.together(lambda: "finished", operations)

    return drawn


def inside(name, failing):
    """Return a function that runs a request in which the rank ``failing`` fails in the operation ``name``."""
    return lambda ranks, operations: ranks.together(lambda: attempted(operations, name, failing), operations)


def refused(failing):
    """Return a function that runs the check of a request, which fails in the rank ``failing``."""
    return lambda ranks, operations: ranks.agree("request", lambda: operations.fail_in(failing))


def other(ranks, operations):
    """Check a request that differs between the two ranks."""
    return ranks.agree(f"request {operations.number}", lambda: "checked")


def absent(ranks, operations):
    """Check a request in the first rank only; the second one never takes part."""
    return ranks.agree("request", lambda: "checked") if operations.number == 0 else "absent"


DRAWN = {
    "ordinary": ordinary,
    "divided": divided,
    "the first between": between(0),
    "the second between": between(1),
    "the first in an operation": inside("fail_in", 0),
    "the second in an operation": inside("fail_in", 1),
    "the first in a redraw": inside("draw", 0),
    "the second in a redraw": inside("draw", 1),
}
CHECKED = {"the first refuses": refused(0), "the second refuses": refused(1), "other requests": other, "absent": absent}


def rank(number, file):
    """Run all requests in one of two ranks.

    Returns:
        By the name of the request: its outcome, the outcome of an ordinary request after it, and the operations that
        ran.
    """
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=number, world_size=2)
    made = {}

    def requested(ranks, operations, draw):
        with ranks.request():
            return draw(ranks, operations)

    for name, run in {**DRAWN, **CHECKED}.items():
        ranks = Ranks(SHORT if name == "absent" else timedelta(seconds=60))
        operations = Operations(number, ranks)
        first = outcome(lambda: requested(ranks, operations, run) if name in DRAWN else run(ranks, operations))  # noqa: B023 (called at once)
        then = outcome(lambda: requested(ranks, operations, ordinary))  # noqa: B023 (called at once)
        made[name] = first, then, operations.ran
    if number == 0:
        made["load"] = outcome(lambda: Ranks(SHORT))
    return made


def second(file, answers):
    """Run the second rank in a separate process, until the first one has received its results."""
    answers.put(rank(1, file))
    answers.join()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Run both ranks, and return the results of :func:`rank` for the first and the second."""
    spawning = multiprocessing.get_context("spawn")
    answers, file = spawning.JoinableQueue(), tmp_path_factory.mktemp("ranks") / "group"
    process = spawning.Process(target=second, args=(file, answers))
    process.start()
    first = rank(0, file)
    made = first, answers.get(timeout=120)
    answers.task_done()
    process.join()
    torch.distributed.destroy_process_group()
    return made


def test_both_ranks_get_the_decision_of_the_first(both):
    assert both[0]["ordinary"][0] == both[1]["ordinary"][0] == "the verdict of rank 0"


def test_an_operation_that_the_first_rank_announces_runs_in_both(both):
    assert both[0]["ordinary"][2] == both[1]["ordinary"][2] == [[1.0, 1.0], [1.0, 1.0]]


def test_an_error_of_the_first_rank_while_it_decides_refuses_the_request_in_both(both):
    assert both[0]["divided"][0] == "division by zero"
    assert "cannot go on: division by zero" in both[1]["divided"][0]


def test_the_ranks_go_on_together_after_an_error_in_both(both):
    assert both[0]["divided"][1] == both[1]["divided"][1] == "the verdict of rank 0"


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("name", [name for name in DRAWN if name not in ("ordinary", "divided")])
def test_an_error_in_one_rank_alone_fails_the_request_in_both_and_refuses_the_next(both, name, number):
    assert [OUT_OF_STEP in text for text in both[number][name][:2]] == [True, True]


@pytest.mark.parametrize(("name", "failing"), [("the first refuses", 0), ("the second refuses", 1)])
def test_a_check_that_one_rank_refuses_is_refused_in_both(both, name, failing):
    assert both[failing][name][0] == "MemoryError"
    assert "another rank refuses the request" in both[1 - failing][name][0]


@pytest.mark.parametrize("name", ["the first refuses", "the second refuses"])
def test_the_ranks_go_on_together_after_a_check_was_refused(both, name):
    assert both[0][name][1] == both[1][name][1] == "the verdict of rank 0"


@pytest.mark.parametrize("number", range(2))
def test_ranks_that_have_different_requests_refuse_them_and_the_next(both, number):
    assert [OUT_OF_STEP in text for text in both[number]["other requests"][:2]] == [True, True]


def test_a_rank_that_waits_in_vain_refuses_the_request_and_the_next(both):
    assert ["does not answer" in text for text in both[0]["absent"][:2]] == [True, True]


def test_a_rank_that_alone_is_guarded_is_refused_in_the_end(both):
    assert "another rank cannot be guarded" in both[0]["load"]


def test_one_rank_alone_decides_by_itself():
    assert Ranks().together(lambda: "its own verdict", None) == "its own verdict"
