"""How far it is from a sampler's step to the model: few enough frames to read in one sitting."""

import sys

from dnp_guard import Guard
from tests.hosts.tiny import tiny
from tests.policies import policy

MOST = 9


class Counts:
    """A scripted backend that notes the frames between the scheduler's wrapped step and itself."""

    def __init__(self):
        self.frames = []

    def ask(self, images, questions):
        frame, frames = sys._getframe(), []
        while frame is not None:
            frames.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")
            if frames[-1].endswith("_wrap_step.<locals>.step"):
                self.frames.append(frames[::-1])
                break
            frame = frame.f_back
        return [[0.0] * len(questions) for _ in images]


def test_from_a_schedulers_step_to_the_model_are_at_most_nine_frames(capsys):
    counts, pipe = Counts(), tiny("StableDiffusionPipeline")
    with Guard(policy(queries={"steps": [0.5], "final": False}), vlm=counts).attached(pipe):
        pipe("a lake", num_inference_steps=4, height=32, width=32)
    (frames,) = counts.frames
    with capsys.disabled():
        print("", *frames, sep="\n  ")  # noqa: T201 (the way itself is worth reading)
    assert len(frames) <= MOST, frames
