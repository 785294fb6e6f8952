import torch
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.steering.guidance import classifier_free, separate, within


def randoms(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(n)]


@given(st.integers(0, 1000), st.floats(0, 20), st.floats(0, 20))
def test_delta_on_both_halves_is_the_papers_equation_at_any_scale(seed, g, s):
    e_u, e_c, e_n = randoms(seed, 3)
    delta = separate(e_n, e_u, torch.tensor(s, dtype=torch.float64))
    expected = e_u + g * (e_c - e_u) - s * (e_n - e_u)
    torch.testing.assert_close(classifier_free(e_u + delta, e_c + delta, g), expected, rtol=0, atol=1e-9)


@given(st.integers(0, 1000))
def test_a_mask_keeps_the_same_places_wherever_the_channels_are(seed):
    d = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    frames_first = d.transpose(1, 2)
    result = within(frames_first, frames_first, 0.3, channels=2)
    assert torch.equal(result.transpose(1, 2), within(d, d, 0.3))
