"""The guard withholds or blurs a refused video in every output form of a pipeline."""

import numpy as np
import pytest
import torch

from dnp_guard import Guard
from dnp_guard.hosts.diffusers.showing.frames import frames, of_frames
from dnp_guard.hosts.diffusers.showing.packing import packed
from tests.hosts.tiny import draw, tiny
from tests.policies import bolt, policy, star

pytestmark = pytest.mark.models


class SeesAtTheEnd:
    """A model that sees a star in the last frame of the second of three finished videos."""

    def __init__(self, looks):
        self.looks = looks

    def ask(self, images, questions):
        self.looks -= 1
        return [
            [0.9 if self.looks == 0 and at == 5 and "star" in question else 0.0 for question in questions]
            for at in range(len(images))
        ]


def delivered(kind, **policy_):
    pipe = tiny("WanPipeline")
    of = policy(queries={"steps": [0.5], "final": True}, **policy_)
    with Guard(of, vlm=SeesAtTheEnd(2)).attached(pipe) as guard:
        videos = draw(pipe, output_type=kind)
    return guard, [np.stack([np.asarray(frame) for frame in video]) for video in videos]


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_every_frame_of_a_blocked_video_is_withheld(kind):
    guard, videos = delivered(kind)
    assert [image.decision for image in guard.last.images] == ["clean", "blocked", "clean"]
    assert [len(video) for video in videos] == [9, 9, 9]
    edges = [video[..., :2, :] if kind == "pt" else video[:, :2] for video in videos]
    assert [bool(np.ptp(edge) == 0) for edge in edges] == [False, True, False]


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_every_frame_of_a_blurred_video_is_blurred(kind):
    plain = [np.stack([np.asarray(frame) for frame in video]) for video in draw(tiny("WanPipeline"), output_type=kind)]
    guard, videos = delivered(kind, categories=[star(still_present="blur"), bolt()])
    assert [image.decision for image in guard.last.images] == ["clean", "blurred", "clean"]
    axis = -1 if kind == "pt" else -2
    detail = [
        np.abs(np.diff(result[1].astype(float), axis=axis)).mean(axis=tuple(range(1, result[1].ndim)))
        for result in (plain, videos)
    ]
    assert (detail[1] < detail[0] / 3).all()
    assert (videos[0] == plain[0]).all()


@pytest.mark.parametrize(("total", "chosen"), [(1, [0]), (3, [0, 1, 2]), (9, [0, 4, 8]), (81, [0, 40, 80])])
def test_the_first_the_middle_and_the_last_frame_are_looked_at(total, chosen):
    assert frames(total) == chosen


def test_frames_of_a_video_stay_together():
    latents = torch.arange(2 * 5).view(2, 1, 5, 1, 1)
    assert of_frames(latents, 2).flatten().tolist() == [0, 2, 4, 5, 7, 9]


def test_latents_are_packed_as_the_pipeline_packs_them():
    pipe, latents = tiny("FluxPipeline"), torch.randn(2, 4, 6, 8)
    expected = pipe._pack_latents(latents, 2, 4, 6, 8)
    packing = packed(lambda x: 3 * pipe._unpack_latents(x, 48, 64, 8) + 1, expected, 3 * latents + 1)
    torch.testing.assert_close(packing, expected)


def test_blocked_latents_that_are_packed_decode_to_grey():
    pipe = tiny("FluxPipeline")
    of = policy(queries={"steps": [0.5], "final": True})

    class Sees(SeesAtTheEnd):
        def ask(self, images, questions):
            self.looks -= 1
            return [[0.9 if self.looks == 0 and at == 1 else 0.0 for _ in questions] for at in range(len(images))]

    with Guard(of, vlm=Sees(2)).attached(pipe) as guard:
        latents = draw(pipe, output_type="latent")
    assert [image.decision for image in guard.last.images] == ["clean", "blocked", "clean"]
    unpacked = pipe._unpack_latents(latents, 32, 32, pipe.vae_scale_factor)
    assert unpacked[1].std(dim=(-1, -2)).mean() < unpacked[0].std(dim=(-1, -2)).mean() / 3
