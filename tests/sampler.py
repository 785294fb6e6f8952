"""A sampler as a driver sees it: it shows pictures at due steps, and steers by the driver's negatives."""

from PIL import Image

from dnp_guard.generation.host import Pictures
from dnp_guard.generation.state import Request
from dnp_guard.types import Step

PICTURE = Image.new("RGB", (32, 32))
STEPS = 10


class Holds:
    """The words of every image's negative in a sampler, by the step at which they came."""

    def __init__(self):
        self.at, self.held = None, {}

    def hold(self, negatives):
        self.held[self.at] = [negative.text if negative else None for negative in negatives]


def start(guard, images=1, *, steering=None, **request):
    """Begin a generation; ``request`` holds the further facts about it."""
    return guard.start(Request(images, **{"host": {"name": "test"}, **request}), steering=steering)


def same(driver, picture=PICTURE):
    """Return a view that shows one picture for every image at every step."""
    return lambda index: Pictures([picture] * len(driver.negatives))


def denoise(
    driver,
    steps=STEPS,
    total=STEPS,
    *,
    view=None,
    holds=None,
    before=lambda index: None,
    sigma=1.0,
    effective=lambda index: True,
):
    """Run the first steps of a sampler.

    Args:
        driver: driver of the generation.
        steps: number of steps to run.
        total: number of steps of the whole run.
        view: maps the index of a step to its pictures.
        holds: holder of the negatives; it is given the current step.
        before: called before every step with its index.
        sigma: the noise level of every step.
        effective: maps the index of a step to whether a negative can take effect after it.
    """
    view = view or same(driver)
    for index in range(steps):
        before(index)
        if holds is not None:
            holds.at = index
        if driver.due(index, total):
            driver.step(Step(index, total, sigma, None, effective=effective(index)), view(index))


def finish(driver, guard=None, picture=PICTURE):
    """End a generation whose finished images are one picture; return the outcomes."""
    outcomes = driver.final(lambda: [picture] * len(driver.negatives))
    if guard is not None:
        guard.finished(driver)
    return outcomes


def run(guard, images=1, *, total=STEPS, view=None, steering=None, **request):
    """Run one whole generation; return its outcomes."""
    driver = start(guard, images, steering=steering, **request)
    denoise(driver, total, total, view=view, holds=steering)
    return finish(driver, guard)
