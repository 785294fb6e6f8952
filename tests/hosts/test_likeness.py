import torch

from dnp_guard.hosts.likeness import coarse, similarity


def test_there_is_no_likeness_to_nothing():
    assert similarity(torch.ones(1, 4, 4, 4), None) == []


def test_equal_predictions_have_a_likeness_of_at_most_one():
    noise = torch.Generator().manual_seed(0)
    predictions = torch.randn(4096, 4, 8, 8, generator=noise)
    likeness = torch.tensor(similarity(predictions, coarse(predictions)))
    assert likeness.max() <= 1
    assert likeness.min() > 0.9999
    assert min(similarity(-predictions, coarse(predictions))) >= -1


def test_videos_are_compared_frame_by_frame():
    video = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    other = video.clone()
    other[1] *= -1
    first, second = similarity(other, coarse(video))
    assert first > 0.9999
    assert second < -0.9999
