"""The extension in a stand-in of the host, on the embedded model, with the service on loopback."""

from __future__ import annotations

import pytest

from dnp_guard.policy.settings import Guidance
from tests.hosts.a1111_host import SAMPLERS, Processing
from tests.policies import star

pytestmark = pytest.mark.models

ASKED = {"prompt": "a red star and a blue circle at night", "steps": 10, "seed": 5}
NOTHING, A_STAR = [{"star": 0.0}], [{"star": 0.9}]
SEEN_THEN_GONE = [{"star": 0.9}, {"star": 0.9}, {"star": 0.9}, {"star": 0.9}, {"star": 0.0}]


def bytes_of(result):
    return [image.tobytes() for image in result.images]


def is_blank(image):
    return image.getcolors() == [(image.width * image.height, (128, 128, 128))]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_in_which_nothing_is_seen_is_bit_for_bit_the_unguarded_one(guarded, plain, sampler):
    guarded.serve(NOTHING)
    host = guarded.host()

    result = host.process(Processing(**ASKED, sampler_name=sampler, batch_size=2))

    assert not host.errors
    assert bytes_of(result) == bytes_of(plain(**ASKED, sampler_name=sampler, batch_size=2))
    assert [text.split("DNP Guard: ")[1].split(",")[0] for text in result.infotexts] == ["clean", "clean"]


@pytest.mark.parametrize("mode", ["separate", "orthogonal", "replace"])
@pytest.mark.parametrize("host", [{}, {"forge": True}, {"sdxl": True}, {"forge": True, "sdxl": True}], ids=str)
def test_a_seen_category_is_steered_away_from_where_it_is_seen_and_nowhere_else(guarded, plain, mode, host):
    guarded.serve([[{"star": 0.9}, {}]] * 4 + NOTHING, guidance=Guidance(mode=mode))
    guarded_host = guarded.host(**host)

    result = guarded_host.process(Processing(**ASKED, batch_size=2))

    without = plain(**ASKED, batch_size=2, options=host)
    assert not guarded_host.errors
    assert result.images[0].tobytes() != without.images[0].tobytes()
    assert result.images[1].tobytes() == without.images[1].tobytes()
    assert "DNP Guard: steered star@2" in result.infotexts[0]
    assert "DNP Guard: clean" in result.infotexts[1]


def test_the_same_job_gives_the_same_image_and_leaves_nothing_behind(guarded, plain):
    guarded.serve([*SEEN_THEN_GONE, *SEEN_THEN_GONE, *NOTHING])
    host = guarded.host()

    first, second, third = (host.process(Processing(**ASKED)) for _ in range(3))

    assert bytes_of(first) == bytes_of(second)
    assert bytes_of(third) == bytes_of(plain(**ASKED))


def test_every_look_belongs_to_a_step_whatever_the_step_costs(guarded):
    guarded.serve(NOTHING)
    host = guarded.host()

    host.process(Processing(**ASKED, sampler_name="Heun"))

    assert [record["step"] for record in guarded.records("query") if "step" in record] == [2, 4, 6, 8]


def test_the_infotext_names_the_request_that_the_record_has(guarded):
    guarded.serve(SEEN_THEN_GONE)
    host = guarded.host()

    result = host.process(Processing(**ASKED, n_iter=2))

    named = [text.split("DNP Guard request: ")[1].split(",")[0] for text in result.infotexts]
    assert named == [record["request"] for record in guarded.records("request.finished")]
    assert len(set(named)) == 2
    assert len(guarded.records("negative.injected")) == 1


def test_what_the_final_look_still_sees_is_withheld_and_the_next_job_is_not(guarded, plain):
    guarded.serve([*A_STAR * 5, *NOTHING])
    host = guarded.host()

    blocked, after = host.process(Processing(**ASKED, save_images=True)), host.process(Processing(**ASKED))

    assert is_blank(blocked.images[0])
    assert is_blank(host.saved[0][1])
    assert "DNP Guard: blocked star@2" in blocked.infotexts[0]
    assert bytes_of(after) == bytes_of(plain(**ASKED))


def test_a_blur_blurs(guarded):
    guarded.serve(A_STAR, categories=[star(action="blur", still_present="blur")])
    host = guarded.host()

    result = host.process(Processing(**ASKED))

    assert not is_blank(result.images[0])
    assert "DNP Guard: blurred" in result.infotexts[0]


def test_without_the_service_nothing_is_delivered(guarded, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
    host = guarded.host()

    result = host.process(Processing(**ASKED, save_images=True))

    assert is_blank(result.images[0])
    assert is_blank(host.saved[0][1])
    assert "failed_closed (service_down" in result.infotexts[0]
    assert len(host.model.encoded) <= 2  # the job ended at its first call of the denoiser


def test_without_the_service_an_operator_may_let_images_pass_and_they_are_counted(guarded, plain, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("DNP_GUARD_ON_FAILURE", "open")
    host = guarded.host()

    result = host.process(Processing(**ASKED))

    assert bytes_of(result) == bytes_of(plain(**ASKED))
    assert "failed_open" in result.infotexts[0]
    assert host.routes["/dnp-guard/status"]()["images"] == {"failed_open": 1}
