"""A sampler as a driver sees one: it shows pictures at each due step and steers by what it is told."""

from PIL import Image

from dnp_guard.generation.driver import Pictures
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
    return guard.start(Request(images, {"name": "test"}, **request), steering=steering)


def denoise(driver, steps=STEPS, total=STEPS, *, view=None, holds=None, before=lambda index: None, sigma=1.0):
    """Run steps of a sampler; ``view`` gives what a step shows, by its index."""
    images = len(driver.session.state.images)
    for index in range(steps):
        before(index)
        if holds is not None:
            holds.at = index
        if driver.due(index, total):
            driver.step(Step(index, total, sigma, None), view(index) if view else Pictures([PICTURE] * images))


def finish(driver, guard=None):
    outcomes = driver.final(lambda: [PICTURE] * len(driver.session.state.images))
    if guard is not None:
        guard.finished(driver)
    return outcomes


def run(guard, images=1, *, total=STEPS, view=None, steering=None, **request):
    """One whole generation; its outcomes."""
    driver = start(guard, images, steering=steering, **request)
    denoise(driver, total, total, view=view, holds=steering)
    return finish(driver, guard)
