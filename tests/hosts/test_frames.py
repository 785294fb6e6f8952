"""The call stack between a sampler's step and the vision-language model is short enough to be read in one sitting."""

import inspect

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy

MOST = 9


class Counts(ScriptedBackend):
    """A scripted backend that notes the names of the stack frames from the scheduler's wrapped step to itself."""

    ways = ()

    def put(self, query):
        names = [f"{info.frame.f_globals['__name__']}.{info.frame.f_code.co_qualname}" for info in inspect.stack()]
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
