"""A sampler as a driver sees one: it shows pictures at each due step and steers by what it is told."""

from PIL import Image

from dnp_guard.generation.host import Pictures
from dnp_guard.generation.state import Request
from dnp_guard.types import Step

PICTURE = Image.new("RGB", (32, 32))
STEPS = 10


class Holds:
    """What a sampler holds: the words of each image's negative, by the step at which they came."""

    def __init__(self):
        self.at, self.held = None, {}

    def hold(self, negatives):
        self.held[self.at] = [negative.text if negative else None for negative in negatives]


def start(guard, images=1, *, steering=None, **request):
    """Begin a generation; ``request`` holds what else is known of it."""
    return guard.start(Request(images, **{"host": {"name": "test"}, **request}), steering=steering)


def same(driver, picture=PICTURE):
    """A view that shows the same picture of every image at every step."""
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
        driver: of the generation.
        steps: how many of them are run.
        total: how many the sampler has.
        view: what a step shows, by its index.
        holds: what holds the negatives, which is told the step.
        before: is called with each index before its step.
        sigma: the noise level of every step.
        effective: whether a negative can take effect after a step, by its index.
    """
    view = view or same(driver)
    for index in range(steps):
        before(index)
        if holds is not None:
            holds.at = index
        if driver.due(index, total):
            driver.step(Step(index, total, sigma, None, effective=effective(index)), view(index))


def finish(driver, guard=None, picture=PICTURE):
    """End a generation whose finished images are all the same; their outcomes."""
    outcomes = driver.final(lambda: [picture] * len(driver.negatives))
    if guard is not None:
        guard.finished(driver)
    return outcomes


def run(guard, images=1, *, total=STEPS, view=None, steering=None, **request):
    """One whole generation; its outcomes."""
    driver = start(guard, images, steering=steering, **request)
    denoise(driver, total, total, view=view, holds=steering)
    return finish(driver, guard)
