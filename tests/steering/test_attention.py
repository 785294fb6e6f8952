import pytest
import torch

from dnp_guard.steering.attention import normalised


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 8, generator=generator), torch.randn(2, 5, 8, generator=generator)


def test_a_feature_vector_that_is_not_long_is_extrapolated_and_mixed(features):
    z_pos, z_neg = features
    reference = 0.25 * (3 * z_pos - 2 * z_neg) + 0.75 * z_pos
    assert torch.allclose(normalised(z_pos, z_neg, 3.0, 100.0, 0.25), reference, atol=1e-6)


def test_an_extrapolated_vector_is_at_most_tau_times_as_long(features):
    z_pos, z_neg = features
    steered = normalised(z_pos, z_neg, 30.0, 2.5, 1.0)
    assert torch.allclose(steered.abs().sum(-1), 2.5 * z_pos.abs().sum(-1), rtol=1e-5)


@pytest.mark.parametrize(("phi", "alpha"), [(1.0, 0.7), (8.0, 0.0)])
def test_no_extrapolation_and_no_share_leave_every_bit(features, phi, alpha):
    z_pos, z_neg = features
    assert torch.equal(normalised(z_pos, z_neg, phi, 2.5, alpha), z_pos)


def test_each_image_has_its_own_share(features):
    z_pos, z_neg = features
    steered = normalised(z_pos, z_neg, 8.0, 2.5, torch.tensor([0.0, 0.5]).view(2, 1, 1))
    assert [torch.equal(a, b) for a, b in zip(steered, z_pos, strict=True)] == [True, False]


def test_features_of_zero_stay_finite():
    zero = torch.zeros(1, 1, 4)
    assert torch.equal(normalised(zero, torch.ones(1, 1, 4), 8.0, 2.5, 0.5), zero)


def test_long_half_precision_features_stay_finite():
    z = torch.full((1, 1, 4096), 30.0, dtype=torch.float16)
    assert normalised(z, -z, 8.0, 3.0, 0.6).isfinite().all()


def test_a_mask_steers_the_positions_that_are_most_like_the_negative():
    z_pos = torch.eye(4).unsqueeze(0)
    z_neg = z_pos.clone()
    z_neg[0, 2:] = -z_neg[0, 2:]
    steered = normalised(z_pos, z_neg + 0.1, 8.0, 2.5, 0.5, mask=0.5)
    assert [torch.equal(a, b) for a, b in zip(steered[0], z_pos[0], strict=True)] == [False, False, True, True]


def test_a_mask_of_one_steers_every_position(features):
    z_pos, z_neg = features
    assert torch.equal(normalised(z_pos, z_neg, 8.0, 2.5, 0.5, mask=1.0), normalised(z_pos, z_neg, 8.0, 2.5, 0.5))


def test_a_mask_leaves_one_position_at_least(features):
    z_pos, z_neg = features
    steered = normalised(z_pos, z_neg, 8.0, 2.5, 0.5, mask=0.01)
    assert [int((a != b).any(-1).sum()) for a, b in zip(steered, z_pos, strict=True)] == [1, 1]


@pytest.mark.parametrize("row", [0, 1])
def test_each_image_has_its_own_bound(features, row):
    z_pos, z_neg = features
    steered = normalised(z_pos, z_neg, 8.0, torch.tensor([1.0, 4.0]).view(2, 1, 1), 0.7)
    alone = normalised(z_pos[row], z_neg[row], 8.0, (1.0, 4.0)[row], 0.7)
    assert torch.equal(steered[row], alone)
