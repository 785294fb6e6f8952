"""How far it is from a sampler's step to the model: few enough frames to read in one sitting."""

import inspect

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy

MOST = 9


class Counts(ScriptedBackend):
    """A scripted backend that notes the frames between the scheduler's wrapped step and itself, both included."""

    ways = ()

    def put(self, query):
        names = [f"{each.frame.f_globals['__name__']}.{each.frame.f_code.co_qualname}" for each in inspect.stack()]
        step = next(at for at, name in enumerate(names) if name.endswith("Call._stepped.<locals>.answer"))
        self.ways = (*self.ways, names[step::-1])
        return super().put(query)


def test_from_a_schedulers_step_to_the_model_are_at_most_nine_frames(capsys):
    counts, pipe = Counts([{}]), tiny("StableDiffusionPipeline")
    with Guard(policy(queries={"steps": [0.5], "final": False}), vlm=counts).attached(pipe):
        pipe("a lake", num_inference_steps=4, height=32, width=32)
    (way,) = counts.ways
    with capsys.disabled():
        print("", *way, sep="\n  ")  # noqa: T201 (the way itself is worth reading)
    assert len(way) <= MOST, way
