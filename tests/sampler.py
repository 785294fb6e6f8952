"""Run a sampler without a model: it shows fixed pictures to a guard's driver at due steps, and notes the negatives.

A driver guards one generation; a negative is a text that it has the sampler steer an image away from.
"""

from PIL import Image

from dnp_guard.generation.host import Pictures
from dnp_guard.generation.state import Request
from dnp_guard.types import Step

PICTURE = Image.new("RGB", (32, 32))
STEPS = 10


class Holds:
    """A record of the negatives that a driver gives the sampler.

    Attributes:
        at: index of the current step.
        held: per step, the words of every image's negative; None for an image without one.
    """

    def __init__(self):
        self.at, self.held = None, {}

    def hold(self, negatives):
        self.held[self.at] = [negative.text if negative else None for negative in negatives]


def start(guard, images=1, *, steering=None, **request):
    """Begin a guarded generation, and return its driver.

    Args:
        guard: the guard.
        images: number of images.
        steering: receiver of the negatives, such as :class:`Holds`.
        request: further fields of the ``Request``.
    """
    return guard.start(Request(images, **{"host": {"name": "test"}, **request}), steering=steering)


def same(driver, picture=PICTURE):
    """Return a function for ``view`` of :func:`denoise` that shows the same picture for all images at all steps."""
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
    """Run the first steps of a generation.

    Args:
        driver: driver of the generation.
        steps: number of steps to run.
        total: number of steps of the whole generation.
        view: returns the ``Pictures`` to show at a step, given its index.
        holds: record of the negatives, which is told the current step.
        before: called before every step with its index.
        sigma: the noise level of every step.
        effective: returns, given a step's index, whether a negative can still change the image after it.
    """
    view = view or same(driver)
    for index in range(steps):
        before(index)
        if holds is not None:
            holds.at = index
        if driver.due(index, total):
            driver.step(Step(index, total, sigma, None, effective=effective(index)), view(index))


def finish(driver, guard=None, picture=PICTURE):
    """End a generation with the same picture as every finished image, and return the images' outcomes."""
    outcomes = driver.final(lambda: [picture] * len(driver.negatives))
    if guard is not None:
        guard.finished(driver)
    return outcomes


def run(guard, images=1, *, total=STEPS, view=None, steering=None, **request):
    """Run a whole generation, and return its images' outcomes; see :func:`start` and :func:`denoise`."""
    driver = start(guard, images, steering=steering, **request)
    denoise(driver, total, total, view=view, holds=steering)
    return finish(driver, guard)
