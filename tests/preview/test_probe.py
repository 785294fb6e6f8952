import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard import Guard
from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.world.models import autoencoder
from dnp_guard.preview.probe import Net, Probe, asked_as, load, save, space_of
from dnp_guard.vlm.combined import Either
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star

VLM = ("scripted", "unknown")


def probe(of=None, seen=(0.1, 0.2, 0.3), vlm=VLM, space="here"):
    of = of or policy()
    torch.manual_seed(0)
    names = [category.id for category in of.categories]
    answers = {name: asked_as(of, name) for name in names}
    return Probe(Net(4, len(names)).eval(), space, answers, vlm, {name: torch.tensor(seen) for name in names})


def test_a_net_has_at_most_200_thousand_weights():
    assert sum(weight.numel() for weight in Net(16, 30).parameters()) <= 200_000


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (5, 7)])
def test_latents_of_any_size_are_read(size):
    rows = probe().scores(torch.randn(3, 4, *size), 0.5)
    assert len(rows) == 3
    for row in rows:
        assert set(row) == {"star", "bolt"}
        assert 0 < row["star"] < 1


def test_the_threshold_is_a_rank_of_what_was_seen():
    assert probe(seen=[n / 100 for n in range(1, 100)]).threshold("star", 0.05) == pytest.approx(0.05)


def test_too_few_looks_that_found_something_skip_nothing():
    few = probe(seen=[0.5] * 50)
    assert few.threshold("star", 0.01) == 0
    assert [row["star"] for row in few.nearness(torch.randn(1, 4, 8, 8), 0.5, 0.01)] == [float("inf")]


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=60), st.floats(0.005, 0.5))
def test_no_more_than_max_miss_of_exchangeable_looks_are_under_the_threshold(scores, max_miss):
    made, missed = probe(), 0
    for held, score in enumerate(scores):  # every look is in turn the next one
        rest = torch.tensor(sorted(scores[:held] + scores[held + 1 :]))
        missed += score < replace(made, seen={"star": rest}).threshold("star", max_miss)
    assert missed <= max_miss * len(scores)


def test_a_saved_probe_says_the_same_again(tmp_path):
    made = probe()
    made.net.half().float()
    save(made, tmp_path / "probe.safetensors")
    again = load(tmp_path / "probe.safetensors")
    latents = torch.randn(2, 4, 8, 8)
    assert again.scores(latents, 0.3) == made.scores(latents, 0.3)
    assert again.space == made.space
    assert again.categories == made.categories
    assert again.vlm == made.vlm


@pytest.mark.parametrize("content", [b"", b"not a probe"])
def test_what_is_no_probe_is_refused(tmp_path, content):
    file = tmp_path / "probe.safetensors"
    file.write_bytes(content)
    with pytest.raises(DnpGuardError, match="no probe could be read"):
        load(file)


def test_a_probe_of_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dnp_guard.preview.probe.FORMAT", 2)
    save(probe(), tmp_path / "probe.safetensors")
    monkeypatch.undo()
    with pytest.raises(DnpGuardError, match="no probe could be read"):
        load(tmp_path / "probe.safetensors")


@pytest.mark.parametrize(
    "changed",
    [
        policy(categories=[star(threshold=0.6), bolt()]),
        policy(categories=[star(look_for=["a sun"]), bolt()]),
        policy(question={"paired": True}),
        policy(categories=[star(), bolt(), star(id="comet")]),
    ],
)
def test_another_question_or_threshold_is_refused(changed):
    with pytest.raises(DnpGuardError, match="other questions or thresholds"):
        probe().check_policy(changed, VLM)


def test_what_does_not_change_a_finding_is_not_bound():
    probe().check_policy(policy(guidance={"scale": 20}, categories=[star(severity="low"), bolt()]), VLM)


def test_a_sensitive_category_need_not_be_known():
    sensitive = {"id": "secret", "sensitive": True, "action": "block", "still_present": "block"}
    probe().check_policy(policy(categories=[star(), bolt(), sensitive]), VLM)


def test_the_answers_of_another_model_are_refused():
    with pytest.raises(DnpGuardError, match="the backend is other 1"):
        probe().check_policy(policy(), ("other", "1"))


def test_the_latents_of_another_autoencoder_are_refused():
    torch.manual_seed(0)
    mine, other = autoencoder(), autoencoder()
    bound = probe(space=space_of(mine))
    bound.check_space(mine)
    bound.check_space(mine.half())
    with pytest.raises(DnpGuardError, match="another autoencoder"):
        bound.check_space(other)


SKIPPING = policy(queries={"skip_probe": {"max_miss": 0.25}})


def test_a_guard_without_a_probe_refuses_a_policy_that_skips_by_one():
    with pytest.raises(DnpGuardError, match="no probe"):
        Guard(SKIPPING, vlm=ScriptedBackend([{}]))


def test_a_guard_refuses_a_probe_of_other_questions(tmp_path):
    save(probe(policy(categories=[star(threshold=0.9), bolt()])), tmp_path / "probe.safetensors")
    with pytest.raises(DnpGuardError, match="other questions"):
        Guard(SKIPPING, vlm=ScriptedBackend([{}]), probe=tmp_path / "probe.safetensors")


def test_a_guard_refuses_a_probe_beside_a_second_opinion(tmp_path):
    save(probe(), tmp_path / "probe.safetensors")
    with pytest.raises(DnpGuardError, match="several are asked"):
        Guard(
            SKIPPING,
            vlm=Either(ScriptedBackend([{}]), ScriptedBackend([{}])),
            probe=tmp_path / "probe.safetensors",
        )


def test_a_guard_reads_no_probe_that_its_policy_does_not_ask_for(tmp_path):
    assert Guard(policy(), vlm=ScriptedBackend([{}]), probe=tmp_path / "missing").probe is None


def test_what_a_probe_is_bound_to_is_in_its_file(tmp_path):
    from safetensors import safe_open

    save(probe(), tmp_path / "probe.safetensors")
    with safe_open(tmp_path / "probe.safetensors", framework="pt") as saved:
        document = json.loads(saved.metadata()["probe"])
    assert document["vlm"] == list(VLM)
    assert set(document["categories"]) == {"star", "bolt"}
