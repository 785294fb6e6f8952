import json

from tests.hosts import kdiffusion_share
from tests.hosts.ksampling import SAMPLERS

PAGE = kdiffusion_share.OUT.parents[1] / "how-to" / "kdiffusion.md"


def test_the_page_shows_what_was_measured():
    assert kdiffusion_share.table(json.loads(kdiffusion_share.OUT.read_text(encoding="utf-8"))) in PAGE.read_text(
        encoding="utf-8"
    )


def test_every_sampler_was_measured_on_enough_images_and_steers():
    measurement = json.loads(kdiffusion_share.OUT.read_text(encoding="utf-8"))
    assert tuple(measurement["samplers"]) == SAMPLERS
    assert measurement["n"] >= 32
    for row in measurement["samplers"].values():
        assert row["steered"]["ci95"][1] < row["unguarded"]["ci95"][0]
        assert row["identical_when_nothing_is_found"] == 1.0
