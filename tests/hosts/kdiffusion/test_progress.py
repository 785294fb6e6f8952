import pytest
import torch

from dnp_guard.hosts.kdiffusion.progress import Progress
from tests.hosts.ksampling import SAMPLERS, sampler

SIGMAS = [10.0, 5.0, 2.0, 1.0, 0.5, 0.0]


class Recorded:
    """A model and a callback for a sampler, which compare its real steps with those that a ``Progress`` infers.

    Attributes:
        began: per evaluation, whether ``Progress`` takes it for the first of a step.
        first: per evaluation, whether it is the first of a step.
        steps: indices of the first evaluations of all steps.
    """

    def __init__(self, progress):
        self.progress = progress
        self.began, self.first = [], []
        self.steps = []

    def model(self, x, sigma):
        self.began.append(self.progress.begins(float(sigma[0])))
        self.first.append(False)
        return x / (1 + sigma[0])

    def callback(self, info):
        self.first[-1] = True  # a callback follows the first evaluation of its step
        self.steps.append(len(self.first) - 1)
        self.progress.called_back(info["i"], float(info["sigma"]))


def followed(name, sigmas=SIGMAS):
    recorded = Recorded(Progress(sigmas))
    sampler(name)(
        recorded.model, torch.ones(1, 1, 2, 2), torch.tensor(sigmas), callback=recorded.callback, disable=True
    )
    return recorded


@pytest.mark.filterwarnings("ignore:Should have:UserWarning:torchsde")
@pytest.mark.parametrize("name", [*SAMPLERS, "dpm_2_ancestral", "dpmpp_3m_sde"])
def test_the_evaluations_that_begin_a_step_are_told_from_sub_steps(name):
    recorded = followed(name)
    settled = recorded.steps[1]  # from the second step on the number of evaluations per step is known
    assert recorded.began[settled:] == recorded.first[settled:]
    assert len(recorded.steps) == len(SIGMAS) - 1


@pytest.mark.filterwarnings("ignore:Should have:UserWarning:torchsde")
@pytest.mark.parametrize("name", [sampler for sampler in SAMPLERS if sampler not in {"heun", "dpmpp_2s_ancestral"}])
def test_most_are_told_in_the_first_step_too(name):
    recorded = followed(name)
    assert recorded.began == recorded.first


@pytest.mark.parametrize("name", ["heun", "dpmpp_2s_ancestral"])
def test_a_first_sub_step_at_the_next_steps_noise_level_or_below_is_taken_for_it(name):
    recorded = followed(name)
    assert recorded.began[:3] == [True, True, True]
    assert recorded.first[:3] == [True, False, True]


def test_a_run_of_known_length_counts_its_steps():
    progress = Progress(SIGMAS)
    assert progress.total == 5
    assert [progress.called_back(index, SIGMAS[index]) for index in range(5)] == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_a_run_of_unknown_length_counts_the_noise_that_is_gone():
    progress = Progress([], (100.0, 1.0))
    assert progress.total is None
    done = [progress.called_back(index, sigma) for index, sigma in enumerate((100.0, 10.0, 1.0))]
    assert done == [0.0, pytest.approx(0.5), 1.0]


def test_a_run_of_which_nothing_is_known_counts_from_its_first_noise_level():
    progress = Progress([])
    assert [progress.called_back(index, sigma) for index, sigma in enumerate((8.0, 2.0, 0.0))] == [0, 0.75, 1]


def test_a_run_of_one_noise_level_is_done():
    assert Progress([], (1.0, 1.0)).called_back(0, 1.0) == 1.0


@pytest.mark.parametrize(("sigmas", "levels"), [([9.0, 1.0, 0.0], (0.9, 0.5)), ([1.0, 0.6, 0.0], (1.0, 0.6)), ([], ())])
def test_the_share_of_noise_at_each_step_is_known_from_the_noise_levels(sigmas, levels):
    assert Progress(sigmas).levels == pytest.approx(levels)
