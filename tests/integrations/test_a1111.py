"""The extension guards a stand-in for AUTOMATIC1111's web UI, on the embedded model, with the service on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from contextlib import ExitStack

import pytest
import torch
from PIL import Image

from dnp_guard.cli import run
from dnp_guard.policy.model.sections import Guidance
from dnp_guard.server import tokens
from tests.hosts.a1111_host import EXTENSION, SAMPLERS, Component, Host, Processing, Script
from tests.hosts.host_check import is_withheld
from tests.policies import star

pytestmark = pytest.mark.models

ASKED = {"prompt": "a red star and a blue circle at night", "steps": 10, "seed": 5}
NOTHING, A_STAR = [{"star": 0.0}], [{"star": 0.9}]
SEEN_THEN_GONE = [{"star": 0.9}, {"star": 0.9}, {"star": 0.9}, {"star": 0.9}, {"star": 0.0}]


def bytes_of(result):
    return [image.tobytes() for image in result.images]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_in_which_nothing_is_seen_is_bit_for_bit_the_unguarded_one(guarded, plain, sampler):
    guarded.serve(NOTHING)
    host = guarded.host()

    result = host.process(Processing(**ASKED, sampler_name=sampler, batch_size=2))

    assert not host.errors
    assert bytes_of(result) == bytes_of(plain(**ASKED, sampler_name=sampler, batch_size=2))
    assert [text.split("DNP Guard: ")[1].split(",")[0] for text in result.infotexts] == ["clean", "clean"]


@pytest.mark.parametrize("mode", ["separate", "replace"])
@pytest.mark.parametrize(
    "host", [{}, {"forge": True}, {"reforge": True}, {"sdxl": True}, {"forge": True, "sdxl": True}], ids=str
)
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


def test_a_sampler_that_calls_back_seldom_is_not_withheld_for_looks_that_it_never_came_to(guarded, plain):
    guarded.serve(NOTHING)
    asked = {**ASKED, "steps": 5, "sampler_name": "DPM fast"}

    result = guarded.host().process(Processing(**asked))

    assert bytes_of(result) == bytes_of(plain(**asked))
    assert "DNP Guard: clean" in result.infotexts[0]


@pytest.mark.parametrize("kind", [{}, {"reforge": True}], ids=str)
def test_the_infotext_names_the_request_that_the_record_has(guarded, kind):
    guarded.serve(SEEN_THEN_GONE)
    host = guarded.host(**kind)

    result = host.process(Processing(**ASKED, n_iter=2))

    named = [text.split("DNP Guard request: ")[1].split(",")[0] for text in result.infotexts]
    assert named == [record["request"] for record in guarded.records("request.finished")]
    assert len(set(named)) == 2
    assert len(guarded.records("negative.injected")) == 1


def test_a_finding_of_the_final_look_is_withheld_and_the_next_job_is_not(guarded, plain):
    guarded.serve([*A_STAR * 5, *NOTHING])
    host = guarded.host()

    blocked, after = host.process(Processing(**ASKED, save_images=True)), host.process(Processing(**ASKED))

    assert is_withheld(blocked.images[0])
    assert is_withheld(host.saved[0][1])
    assert "DNP Guard: blocked star@2" in blocked.infotexts[0]
    assert bytes_of(after) == bytes_of(plain(**ASKED))


def test_a_blur_blurs(guarded):
    guarded.serve(A_STAR, categories=[star(action="blur", still_present="blur")])
    host = guarded.host()

    result = host.process(Processing(**ASKED))

    assert not is_withheld(result.images[0])
    assert "DNP Guard: blurred" in result.infotexts[0]


def test_without_the_service_nothing_is_delivered(guarded, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
    host = guarded.host()

    result = host.process(Processing(**ASKED, save_images=True))

    assert is_withheld(result.images[0])
    assert is_withheld(host.saved[0][1])
    assert "failed_closed (service_down" in result.infotexts[0]
    assert len(host.model.encoded) <= 2  # the job ends at its first call of the denoiser


def test_without_the_service_an_operator_may_let_images_pass_and_they_are_counted(guarded, plain, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("DNP_GUARD_ON_FAILURE", "open")
    host = guarded.host()

    result = host.process(Processing(**ASKED))

    assert bytes_of(result) == bytes_of(plain(**ASKED))
    assert "failed_open" in result.infotexts[0]
    assert host.routes["/dnp-guard/status"]()["images"] == {"failed_open": 1}


def test_a_host_that_is_down_and_up_again_is_guarded_again(guarded, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
    host = guarded.host()
    host.process(Processing(**ASKED))
    guarded.serve(SEEN_THEN_GONE)

    result = host.process(Processing(**ASKED))

    assert "DNP Guard: steered star@2" in result.infotexts[0]


def test_the_hires_pass_goes_on_counting_and_only_the_finished_image_is_kept(guarded):
    guarded.serve(SEEN_THEN_GONE)
    host = guarded.host(options={"save_images_before_highres_fix": True})

    result = host.process(Processing(**ASKED, enable_hr=True, hr_second_pass_steps=5, save_images=True))

    assert [record["step"] for record in guarded.records("query") if "step" in record] == [3, 6, 9, 12]
    assert [is_withheld(image) for _, image in host.saved] == [True, False]
    assert result.images[0].size == (64, 64)
    assert len({record["request"] for record in guarded.records("query")}) == 1


def test_image_to_image_is_guarded_over_the_steps_that_it_runs(guarded):
    guarded.serve(SEEN_THEN_GONE)
    host = guarded.host()
    start = host.process(Processing(**ASKED)).images

    host.process(Processing(**ASKED, init_images=start, denoising_strength=0.5))

    second = guarded.records("request.started")[1]["request"]
    steps = [record["step"] for record in guarded.records("query") if record["request"] == second and "step" in record]
    assert steps == [1, 2, 4, 5]  # of six steps


@pytest.mark.parametrize("kind", ["forge", "reforge"])
@pytest.mark.parametrize(("mode", "effective"), [("replace", False), ("separate", True)])
def test_at_a_guidance_scale_of_1_only_a_term_of_its_own_takes_effect(guarded, plain, mode, effective, kind):
    guarded.serve(SEEN_THEN_GONE, guidance=Guidance(mode=mode, hold=0))
    host = guarded.host(**{kind: True})

    result = host.process(Processing(**ASKED, cfg_scale=1.0))

    differs = bytes_of(result) != bytes_of(plain(**ASKED, cfg_scale=1.0, options={kind: True}))
    assert differs is effective
    assert [record["negative"]["effective"] for record in guarded.records("negative.injected")] == [effective]
    assert ("DNP Guard: steered" in result.infotexts[0]) is effective


def test_ngms_is_off_while_a_negative_stands_in_the_unconditional_and_on_again_after(guarded, plain):
    asked = {**ASKED, "s_min_uncond": 20.0}
    guarded.serve([{"star": 0.9}, {"star": 0.0}], guidance=Guidance(mode="replace", hold=0))
    host = guarded.host()
    skips = []
    callback = host.registered["cfg_denoiser"][0]

    def seen(params):
        callback(params)
        skips.append(params.denoiser.sampler.sampler_extra_args["s_min_uncond"])

    host.registered["cfg_denoiser"][0] = seen

    host.process(Processing(**asked))

    assert skips == [20.0] * 3 + [0.0] * 2 + [20.0] * 5


def test_a_negative_longer_than_the_unconditional_is_evaluated_whole(guarded, plain):
    long = ", ".join(["a blue circle at night"] * 8)
    guarded.serve(SEEN_THEN_GONE, guidance=Guidance(mode="replace"))
    host = guarded.host()

    result = host.process(Processing(**ASKED, negative_prompt=long))

    assert not host.errors
    assert ["star, " + long] in host.model.encoded
    assert "DNP Guard: steered" in result.infotexts[0]


def test_prompt_editing_of_the_users_negative_goes_on_beside_the_guards_words(guarded):
    guarded.serve(SEEN_THEN_GONE, guidance=Guidance(mode="replace"))
    host = guarded.host()

    host.process(Processing(**ASKED, negative_prompt="a [ring:cross:6]"))

    mine = [texts[0] for texts in host.model.encoded if texts[0].startswith("star")]
    assert mine == ["star, a ring", "star, a cross"]


def test_a_host_without_the_old_scheduling_of_prompts_is_steered(guarded, plain, monkeypatch):
    guarded.serve(SEEN_THEN_GONE, guidance=Guidance(mode="replace"))
    host = guarded.host()
    module = sys.modules["modules.prompt_parser"]
    whole = module.get_learned_conditioning_prompt_schedules
    monkeypatch.setattr(
        module,
        "get_learned_conditioning_prompt_schedules",
        lambda prompts, base_steps, hires_steps=None: whole(prompts, base_steps, hires_steps),
    )

    result = host.process(Processing(**ASKED))

    assert bytes_of(result) != bytes_of(plain(**ASKED))


BRINGS = {"init_images": [Image.new("RGB", (32, 32), "red")], "denoising_strength": 0.5}


def test_a_job_is_refused_for_the_picture_that_it_starts_from(guarded):
    guarded.serve(A_STAR, inputs={"query": True, "action": "block"})
    host, steps = guarded.host(), []
    host.registered["cfg_after_cfg"].append(steps.append)

    result = host.process(Processing(**ASKED, **BRINGS))

    assert not steps
    assert is_withheld(result.images[0])
    assert "DNP Guard: blocked" in result.infotexts[0]


def test_a_job_whose_own_picture_passes_goes_on(guarded, plain):
    guarded.serve(NOTHING, inputs={"query": True, "action": "block"})
    host = guarded.host()

    result = host.process(Processing(**ASKED, **BRINGS))

    assert bytes_of(result) == bytes_of(plain(**ASKED, **BRINGS))
    assert [record["input"] for record in guarded.records("query.input")] == [0]


def test_an_interrupted_job_is_looked_at_before_it_is_delivered(guarded):
    guarded.serve(A_STAR)
    host = guarded.host()
    host.registered.setdefault("cfg_after_cfg", []).append(lambda _: host.state.interrupt())

    result = host.process(Processing(**ASKED))

    assert is_withheld(result.images[0])
    assert "DNP Guard: blocked" in result.infotexts[0]


def test_a_host_that_bypasses_guidance_delivers_nothing(guarded):
    guarded.serve(NOTHING)
    host = guarded.host()
    host.registered = {kind: calls for kind, calls in host.registered.items() if not kind.startswith("cfg_")}
    host.scripts[0].process_before_every_sampling = lambda *_, **__: None

    result = host.process(Processing(**ASKED))

    assert is_withheld(result.images[0])
    assert "DNP Guard: failed_closed" in result.infotexts[0]


def test_the_final_look_decides_when_a_negative_cannot_be_encoded(guarded, monkeypatch):
    guarded.serve(A_STAR)
    host = guarded.host()
    encode = host.model.get_learned_conditioning

    def refuse(prompts):
        if "star" in prompts:
            raise RuntimeError("no memory")
        return encode(prompts)

    monkeypatch.setattr(host.model, "get_learned_conditioning", refuse)

    result = host.process(Processing(**ASKED))

    assert is_withheld(result.images[0])
    assert not host.errors  # nothing was raised where the host would swallow it


@pytest.mark.parametrize(("shown", "expected"), [("withhold", 0), ("blur", 10), ("allow", 10)])
def test_live_previews_of_what_was_found_are_what_the_policy_allows(guarded, shown, expected):
    guarded.serve(A_STAR, preview={"user_previews": shown})
    host = guarded.host()
    host.process(Processing(**ASKED))
    assert len(host.state.shown) == expected


def test_live_previews_of_a_clean_image_are_shown_from_the_first_look_on(guarded, plain):
    guarded.serve(NOTHING, preview={"user_previews": "withhold"})
    host = guarded.host()
    host.process(Processing(**ASKED))
    unguarded = [image.tobytes() for image in plain(**ASKED).host.state.shown]
    shown = [image.tobytes() for image in host.state.shown]
    assert shown
    assert shown == unguarded[-len(shown) :]


@pytest.mark.parametrize("locked", [True, False])
def test_a_program_may_not_switch_the_guard_off(guarded, locked):
    guarded.serve(A_STAR)
    host = guarded.host(options={"dnp_guard_locked": locked})

    result = host.process(
        Processing(
            **ASKED,
            script_args=(False, ""),
            override_settings={"dnp_guard_locked": False, "dnp_guard_on_failure": "open", "dnp_guard_url": "http://x"},
        )
    )

    assert is_withheld(result.images[0])


def test_a_user_may_switch_it_off_where_that_is_not_locked(guarded, plain):
    guarded.serve(A_STAR)
    host = guarded.host(options={"dnp_guard_locked": False})

    result = host.process(Processing(**ASKED, is_api=False, script_args=(False, "")))

    assert bytes_of(result) == bytes_of(plain(**ASKED))
    assert "DNP Guard" not in result.infotexts[0]
    assert host.routes["/dnp-guard/status"]()["images"] == {"off": 1}


def test_a_request_may_name_a_stricter_policy_and_one_that_nobody_knows_delivers_nothing(guarded):
    guarded.serve(NOTHING)
    host = guarded.host(options={"dnp_guard_on_failure": "open", "dnp_guard_locked": False})

    result = host.process(Processing(**ASKED, script_args=(True, "another")))

    assert is_withheld(result.images[0])
    assert "failed_closed (request_refused: 403" in result.infotexts[0]


def test_settings_that_cannot_be_used_deliver_nothing_and_say_why(guarded, monkeypatch):
    guarded.serve(NOTHING)
    monkeypatch.setenv("DNP_GUARD_TOKEN_FILE", str(guarded.folder / "no-such-token"))
    host = guarded.host()

    result = host.process(Processing(**ASKED))

    assert is_withheld(result.images[0])
    assert "no-such-token" in result.infotexts[0]
    assert "no-such-token" in host.routes["/dnp-guard/status"]()["trouble"]


def test_a_receipt_is_of_the_delivered_image(guarded):
    from dnp_guard.server import pictures, receipts

    key = guarded.folder / "key"
    public = receipts.new_key(key)
    guarded.serve(SEEN_THEN_GONE, settings={"receipt_key": key})
    host = guarded.host()

    result = host.process(Processing(**ASKED))

    receipt = result.infotexts[0].split("DNP Guard receipt: ")[1].split(",")[0]
    claims = receipts.read(receipt, public)
    assert claims["picture"] == pictures.digest(result.images[0])
    assert claims["decision"] == "steered"
    assert claims["action"] == "pass"


def test_a_job_within_a_job_leaves_the_outer_ones_images_alone(guarded, plain):
    guarded.serve(NOTHING)
    host = guarded.host()
    inner = []

    class Detailer(Script):
        def postprocess_image(self, p, pp, *args):
            if not inner:
                inner.append(None)  # the inner job calls this too
                inner[0] = host.process(Processing(**{**ASKED, "seed": 9}))

    host.scripts.insert(0, Detailer())

    result = host.process(Processing(**ASKED, batch_size=2))

    assert bytes_of(result) == bytes_of(plain(**ASKED, batch_size=2))
    assert not is_withheld(inner[0].images[0])


def test_the_page_is_built_alike_every_time(guarded):
    guarded.serve(NOTHING)
    host = guarded.host()
    first, second = host.scripts[0].ui(False), host.scripts[0].ui(False)
    assert [(component.label, component.value, component.interactive) for component in first] == [
        (component.label, component.value, component.interactive) for component in second
    ]
    assert [component.interactive for component in first] == [False, False]


class Watching(Script):
    """A second extension, which is given the decoded images after the guard's."""

    def __init__(self) -> None:
        self.seen = []

    def postprocess_batch(self, p, *args, images, **values):
        self.seen.append((images.clone() * 255).byte())


def test_withholding_changes_the_images_that_the_host_goes_on_with(guarded):
    guarded.serve([*[[{}, {}]] * 4, [{}, {"star": 0.9}]])
    host, other = guarded.host(), Watching()
    host.scripts.append(other)

    host.process(Processing(**ASKED, batch_size=2))

    assert [(image.float() - 128).abs().max().item() == 0 for image in other.seen[0][..., 0, 0]] == [False, True]


def test_the_frames_of_a_video_are_withheld_together(guarded):
    guarded.serve([*NOTHING * 4, *A_STAR])
    host = guarded.host()
    p = Processing(**ASKED)
    host.process(p)
    frames = torch.rand(5, 3, 32, 32)

    p.dnp_guard_job.batch_done(frames)

    assert {tuple(frame[:, 0, 0].mul(255).byte().tolist()) for frame in frames} == {(128, 128, 128)}
    assert is_withheld(p.dnp_guard_job.delivered(Image.new("RGB", (32, 32), "red"), 4))


@pytest.fixture
def page(guarded, monkeypatch):
    """Return a function that builds the extension's accordion on the page, and returns its components by class."""

    def build(host):
        built = {"Markdown": [], "Textbox": [], "Checkbox": [], "Button": []}
        for name, parts in built.items():
            made = lambda *_, parts=parts, **values: parts.append(Component(**values)) or parts[-1]  # noqa: E731
            monkeypatch.setattr(sys.modules["gradio"], name, made)
        host.scripts[0].ui(False)
        return built

    return build


def test_the_page_names_the_mode_and_the_record_of_the_last_job(guarded, page):
    guarded.serve(NOTHING)
    host = guarded.host()
    built = page(host)

    host.process(Processing(**ASKED))

    request = guarded.records("request.finished")[0]["request"]
    assert built["Markdown"][1].value == f"Last job: enforce, record `{request}`."
    assert built["Button"][0].clicked() == tuple(component.value for component in built["Markdown"][:2])


def test_the_page_links_to_the_record_where_the_service_shows_it(guarded, page, tmp_path, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_TOKEN", tokens.add(tmp_path / "tokens.json"))
    tokens.add(tmp_path / "tokens.json", role="moderator", name="ann")
    url = guarded.serve(NOTHING, settings={"console": True, "token_file": tmp_path / "tokens.json"})
    host = guarded.host()
    built = page(host)

    host.process(Processing(**ASKED))

    request = guarded.records("request.finished")[0]["request"]
    assert f"[{request}]({url}/console/image/{request}/0)" in built["Markdown"][1].value


def test_the_page_has_a_light_for_the_service(guarded, page, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
    light = page(guarded.host())["Markdown"][0]
    dark = light.value
    url = guarded.serve(NOTHING)
    host = guarded.host()
    host.process(Processing(**ASKED))

    assert dark == "✗ The guard service does not answer at http://127.0.0.1:9."
    assert light.value == f"✓ The guard service answers at {url}."


@pytest.mark.parametrize("locked", [True, False])
def test_the_page_shows_a_control_only_where_it_changes_something(guarded, page, locked):
    built = page(guarded.host(options={"dnp_guard_locked": locked}))
    assert [component.visible for component in (*built["Checkbox"], *built["Textbox"])] == [not locked] * 2
    assert built["Textbox"][0].lines == 1


def test_a_service_that_dies_ends_the_sampling_and_says_so_once(guarded, tmp_path, monkeypatch, caplog):
    host, steps = guarded.host(), []
    with ExitStack() as alive:
        type(guarded)(tmp_path, alive, monkeypatch).serve(NOTHING)

        def step(_):
            steps.append(len(steps))
            if len(steps) == 4:
                alive.close()

        host.registered["cfg_after_cfg"].append(step)
        result = host.process(Processing(**ASKED))

    assert len(steps) == 7  # looks are due at steps 2 and 4, and at the next step after a missed look
    assert is_withheld(result.images[0])
    messages = [record.getMessage() for record in caplog.records if record.name == "dnp_guard"]
    assert [line.partition(" (request")[0] for line in messages] == [
        "DNP Guard: the images of this batch are withheld: service_down: Connection refused"
    ]


def test_the_other_batches_of_a_job_whose_service_dies_are_withheld_at_once(guarded, tmp_path, monkeypatch):
    host, steps = guarded.host(), []
    with ExitStack() as alive:
        type(guarded)(tmp_path, alive, monkeypatch).serve(NOTHING)
        host.registered["cfg_after_cfg"].append(lambda _: steps.append(0) or (alive.close() if len(steps) == 4 else 0))
        result = host.process(Processing(**ASKED, n_iter=2))

    assert [is_withheld(image) for image in result.images] == [True, True]
    assert len(steps) == 7


@pytest.mark.parametrize(("configuration", "interactive"), [(None, None), ({"locked": True}, False)])
def test_the_settings_page_is_for_reading_where_it_would_change_nothing(guarded, tmp_path, configuration, interactive):
    folder = shutil.copytree(EXTENSION, tmp_path / "extension")
    if configuration is not None:
        (folder / "dnp_guard.json").write_text(json.dumps(configuration))

    host = guarded.host(folder=folder)

    infos = [info for name, info in host.options.data_labels.items() if name.startswith("dnp_guard_")]
    assert [info.component_args.get("interactive") for info in infos] == [interactive] * 5


@pytest.mark.parametrize("forge", [False, True])
def test_a_program_does_not_change_the_settings_and_the_page_does(guarded, forge):
    host = guarded.host(forge=forge)

    host.set_through_the_api({"dnp_guard_on_failure": "open"})
    refused = host.options.dnp_guard_on_failure
    host.options.set("dnp_guard_on_failure", "open")

    assert refused == "closed"
    assert host.options.dnp_guard_on_failure == "open"


def test_the_settings_page_shows_what_is_in_force(guarded, tmp_path):
    folder = shutil.copytree(EXTENSION, tmp_path / "extension")
    (folder / "dnp_guard.json").write_text(json.dumps({"url": "http://127.0.0.1:8999"}))

    host = guarded.host(folder=folder, options={"dnp_guard_url": "http://127.0.0.1:9"})

    assert host.options.dnp_guard_url == "http://127.0.0.1:8999"


def test_the_settings_page_shows_an_address_of_the_environment_and_leaves_the_rest_to_be_changed(guarded):
    url = guarded.serve(NOTHING)

    host = guarded.host(options={"dnp_guard_url": "http://127.0.0.1:9"})

    editable = {name: info.component_args.get("interactive") for name, info in host.options.data_labels.items()}
    assert host.options.dnp_guard_url == url
    assert [name for name, interactive in editable.items() if interactive is False] == ["dnp_guard_url"]


def test_every_setting_is_closed_to_the_api_and_none_is_the_token(guarded):
    host = guarded.host()
    mine = {name: info for name, info in host.options.data_labels.items() if name.startswith("dnp_guard_")}
    assert len(mine) == 5
    assert all(info.restrict_api for info in mine.values())
    assert not [name for name in mine if "token" in name]


def test_a_page_that_is_reloaded_guards_on_and_counts_on(guarded):
    guarded.serve(A_STAR)
    host = guarded.host()
    host.process(Processing(**ASKED))

    host.reload()
    after = host.process(Processing(**ASKED))

    assert is_withheld(after.images[0])
    assert host.routes["/dnp-guard/status"]()["images"] == {"blocked": 2}


def test_unloading_the_script_leaves_the_host_as_it_was(guarded):
    host = guarded.host()
    host.callbacks("script_unloaded")
    assert "assign_current_image" not in vars(host.state)


def test_installed_from_the_command_line_it_starts_the_service_and_stops_it(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "extensions").mkdir()
    audit = tmp_path / "audit.jsonl"
    started = ["--start-vlm", "glyphs", "--start-policy", "glyphs", "--start-audit", str(audit)]
    assert run(["install", "a1111", str(tmp_path), "--url", url, *started]) == 0
    monkeypatch.delenv("DNP_GUARD_URL", raising=False)

    with Host(tmp_path / "extensions" / "dnp-guard") as host:
        service = sys.modules["dnp_guard_extension.guarding"].SERVICE
        try:
            result = host.process(Processing(prompt="a storm sign and a white triangle at night", steps=25))
            process = service.process
        finally:
            service.stop()

    assert "DNP Guard: steered bolt@" in result.infotexts[0]
    injected = [json.loads(line) for line in audit.read_text().splitlines() if "negative.injected" in line]
    assert injected[0]["request"] in result.infotexts[0]
    assert process.returncode is not None
    assert run(["install", "a1111", str(tmp_path), "--check"]) == 0
    assert run(["uninstall", "a1111", str(tmp_path)]) == 0
    assert not list((tmp_path / "extensions").iterdir())
