import pytest
import torch

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.distill.examples import Example, spatial
from dnp_guard.lab.distill.training import check, parts, train
from tests.policies import policy

VLM = ("scripted", "1")
ROUNDS = 60


def looks(images=120, seed=0):
    """Make training examples, three looks per image: latents with a bright corner for a star, a dark one for a bolt."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for image in range(images):
        for step in range(3):
            latents = torch.randn(4, 8, 8, generator=draw)
            categories = (frozenset({"star"}), frozenset({"bolt"}), frozenset(), frozenset())[image % 4]
            latents[0, :3, :3] += 4 * ("star" in categories)
            latents[1, 5:, 5:] -= 4 * ("bolt" in categories)
            made.append(Example(latents.half(), step / 3, categories, str(image)))
    return made


@pytest.fixture(scope="module")
def trained():
    return train(looks(), policy(), "here", VLM, rounds=ROUNDS)


def test_found_categories_score_higher_than_others(trained):
    fresh = looks(seed=1)
    rows = [trained.scores(look.latents[None], look.progress)[0]["star"] for look in fresh]
    seen = [row for row, look in zip(rows, fresh, strict=True) if "star" in look.found]
    clean = [row for row, look in zip(rows, fresh, strict=True) if "star" not in look.found]
    assert sum(seen) / len(seen) > 0.9
    assert sum(clean) / len(clean) < 0.1


def test_looks_that_find_nothing_are_skipped_and_the_others_asked_about(trained):
    checked = check(trained, looks(), 0.1)
    assert checked.skipped > 0.8 * checked.clean
    assert checked.missed < 0.3 * checked.found


def test_no_image_is_in_two_parts():
    divided = [{look.image for look in part} for part in parts(looks())]
    assert all(divided)
    assert sum(map(len, divided)) == len(set().union(*divided)) == 120


def test_training_again_gives_the_same_probe(trained):
    again = train(looks(), policy(), "here", VLM, rounds=ROUNDS)
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), trained.net.parameters(), strict=True))


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    train(looks(40), policy(), "here", VLM, rounds=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("few", [[], [Example(torch.zeros(4, 8, 8), 0.0, frozenset(), "0")]])
def test_too_few_looks_are_refused(few):
    with pytest.raises(DnpGuardError, match="too few to learn from"):
        train(few, policy(), "here", VLM)


@pytest.mark.parametrize("shape", [(1, 64, 16), (1, 4, 3, 8, 8)])
def test_packed_and_moving_latents_are_refused(shape):
    with pytest.raises(DnpGuardError, match="dimensions"):
        spatial(torch.zeros(shape))
