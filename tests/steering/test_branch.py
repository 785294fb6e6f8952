import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.policy import Guidance
from dnp_guard.steering.branch import Branch, Term


def settings(**changes):
    return Guidance(scale=6.0, strength="constant", **changes)


def term(text="star", scale=2.0):
    return Term(text, None, scale)


def run(branch, steps, e_u):
    """Run a negative's branch through steps; return the number of evaluations and the guidance term per step.

    Args:
        branch: the branch.
        steps: per step, the active terms by image.
        e_u: unconditional prediction; evaluation number k of the negative gives e_u + k.
    """
    done, counts, added = 0, [], []
    for active in steps:
        due = branch.due(active)
        counts.append(len(due))
        for step in due:
            done += 1
            branch.keep([step], e_u[step[0] : step[0] + 1] + done, e_u)
        added.append(branch.delta(active))
    return counts, added


def test_the_negative_is_evaluated_at_every_step_by_default():
    counts, _ = run(Branch(settings()), [{0: term()}] * 4, torch.zeros(1, 2, 4, 4))
    assert counts == [1, 1, 1, 1]


def test_reuse_evaluates_every_kth_step_and_adds_what_it_gave_between():
    counts, added = run(Branch(settings(reuse=3)), [{0: term()}] * 5, torch.zeros(1, 2, 4, 4))
    assert counts == [1, 0, 0, 1, 0]
    assert [tensor.flatten()[0].item() for tensor in added] == [-2, -2, -2, -4, -4]


def test_reuse_takes_the_scale_of_each_step():
    steps = [{0: term(scale=2.0)}, {0: term(scale=5.0)}]
    counts, added = run(Branch(settings(reuse=2)), steps, torch.zeros(1, 2, 4, 4))
    assert counts == [1, 0]
    assert added[1].flatten()[0].item() == -5


def test_other_words_are_evaluated_at_once():
    steps = [{0: term("star")}, {0: term("bolt")}, {0: term("bolt")}]
    counts, _ = run(Branch(settings(reuse=9)), steps, torch.zeros(1, 2, 4, 4))
    assert counts == [1, 1, 0]


def test_words_that_were_let_go_are_evaluated_anew():
    steps = [{0: term()}, {1: term()}, {0: term()}]
    counts, _ = run(Branch(settings(reuse=9)), steps, torch.zeros(2, 2, 4, 4))
    assert counts == [1, 1, 1]


def test_an_evaluation_that_failed_is_due_again():
    branch = Branch(settings(reuse=9))
    branch.due({0: term()})
    assert len(branch.due({0: term()})) == 1


@pytest.mark.parametrize(("reuse", "counts"), [(None, [1, 1, 1, 1, 1, 1]), (2, [1, 0, 0, 0, 1, 0])])
def test_reuse_counts_steps_and_not_their_sub_steps(reuse, counts):
    branch, e_u, results = Branch(settings(reuse=reuse)), torch.zeros(1, 2, 4, 4), []
    for evaluation in range(6):
        due = branch.due({0: term()}, begins=evaluation % 2 == 0)
        branch.keep(due, e_u[: len(due)] + 1, e_u)
        results.append(len(due))
    assert results == counts


@given(st.integers(1, 6), st.integers(1, 20))
def test_reuse_divides_the_evaluations(every, steps):
    counts, _ = run(Branch(settings(reuse=every)), [{0: term()}] * steps, torch.zeros(1, 1, 2, 2))
    assert sum(counts) == -(-steps // every)


def test_each_image_is_pushed_from_its_own_unconditional_at_its_own_scale():
    e_u = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    e_n = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    active = {2: term("star", 2.0), 0: term("bolt", 5.0)}
    branch = Branch(settings())
    branch.keep(branch.due(active), e_n, e_u)
    delta = branch.delta(active)
    torch.testing.assert_close(delta[0], -2 * (e_n[0] - e_u[2]))
    torch.testing.assert_close(delta[1], -5 * (e_n[1] - e_u[0]))


def test_a_mask_steers_only_where_the_negative_differs_most():
    e_u = torch.zeros(1, 2, 8, 8)
    e_n = torch.zeros(1, 2, 8, 8)
    e_n[:, :, 2:4, 2:4] = 1.0
    active = {0: term()}
    branch = Branch(settings(mask=0.25))
    branch.keep(branch.due(active), e_n + 0.01, e_u)
    delta = branch.delta(active)
    assert (delta[0, :, 2:4, 2:4] < -1).all()
    assert (delta[0, :, 6:] == 0).all()
