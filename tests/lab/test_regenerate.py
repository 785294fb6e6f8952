import hashlib
import struct

import pytest
import torch

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.cli import run
from dnp_guard.errors import AuditError
from dnp_guard.glyphs import PROBE
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.regenerate import matching_prompts, recorded, regenerate
from dnp_guard.policy import Policy, load_policy
from dnp_guard.vlm.scripted import ScriptedBackend

PROMPTS = ["a red circle and a wish at night", "a blue square in a field"]
STEPS = 6


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline()


def generate(pipe, prompts=PROMPTS, seeds=(3, 4), **options):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    pipe(prompts, num_inference_steps=STEPS, guidance_scale=5.0, generator=generators, **options)


@pytest.fixture(scope="module")
def logged(pipe, tmp_path_factory):
    """Return an audit log of one generation of two images, and the generation's id."""
    return log_of(tmp_path_factory.mktemp("replay"), pipe)


def log_of(folder, pipe, policy="glyphs", **options):
    """Write an audit log of one generation of two images into a folder; return the log and the generation's id."""
    log = folder / "audit.jsonl"
    with Guard(policy, vlm="glyphs", audit=log) as guard, guard.attached(pipe):
        generate(pipe, **options)
        return log, guard.last.request


def replay(log, request, tmp_path, *options, prompts=PROMPTS):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n")
    return run(["audit", "replay", request, "--log", str(log), "--prompt-file", str(file), *options])


class Named:
    """A backend of one fixed probability that has the name and revision of another backend."""

    name, revision = "glyphs", "same"

    def __init__(self, probability):
        self.probability = probability

    def ask(self, images, questions):
        return [[self.probability] * len(questions) for _ in images]


def remembered(pipe, policy, vlm, prompt=PROMPTS[1]):
    """Run a guarded generation of one image, and return it as a replay reads it from the audit records."""
    sink = MemorySink()
    with Guard(policy, vlm=vlm, audit=sink) as guard, guard.attached(pipe):
        generate(pipe, [prompt], seeds=(7,))
        return recorded(sink.records, guard.last.request)


def test_a_call_that_brought_its_latents_is_recorded_by_their_hash_and_not_made_again(pipe):
    config = pipe.unet.config
    latents = torch.randn(1, config.in_channels, config.sample_size, config.sample_size)
    sink = MemorySink()
    with Guard("glyphs", vlm=Named(0.0), audit=sink) as guard, guard.attached(pipe):
        generate(pipe, PROMPTS[:1], seeds=(3,), latents=latents)
    (started,) = [record for record in sink.records if record["event"] == "request.started"]
    assert (
        started["run"]["latents"]
        == hashlib.sha256(b"".join(struct.pack("<f", x) for x in latents.flatten())).hexdigest()
    )
    with pytest.raises(AuditError, match="began with latents given to the call"):
        recorded(sink.records, guard.last.request)


def test_the_same_prompt_seed_and_policy_give_the_same_decisions(logged, tmp_path, capsys):
    assert replay(*logged, tmp_path) == 0
    assert "2 of 2 images decided as recorded" in capsys.readouterr().out


def test_a_call_is_made_again_in_its_size(pipe, tmp_path, capsys):
    log = log_of(tmp_path, pipe, height=32, width=48)
    assert replay(*log, tmp_path) == 0
    assert "probabilities differ by 0 at most" in capsys.readouterr().out


def test_a_call_with_a_negative_prompt_is_made_again_where_that_is_supplied(pipe, tmp_path, capsys):
    log = log_of(tmp_path, pipe, negative_prompt=["a red circle"] * 2)
    negative = tmp_path / "negative.txt"
    negative.write_text("a red circle\n")
    assert replay(*log, tmp_path, "--negative-file", str(negative)) == 0
    assert "probabilities differ by 0 at most" in capsys.readouterr().out
    replay(*log, tmp_path)
    assert "probabilities differ by 0 at most" not in capsys.readouterr().out


def test_looks_that_a_probe_skipped_are_skipped_again(pipe, tmp_path, capsys):
    log = log_of(tmp_path, pipe, policy="glyphs-light")
    assert '"reason":"unlikely"' in log[0].read_text()
    assert replay(*log, tmp_path, "--probe", str(PROBE)) == 0
    assert "2 of 2 images decided as recorded" in capsys.readouterr().out


def test_a_prompt_that_is_not_the_one_of_the_record_is_refused(logged, tmp_path, capsys):
    assert replay(*logged, tmp_path, prompts=[PROMPTS[0], "a blue square in a fielt"]) == 2
    assert "prompt 2 is not the one in the record" in capsys.readouterr().err


def test_another_policy_is_refused(logged, tmp_path, capsys):
    assert replay(*logged, tmp_path, "--policy", "strict") == 2
    assert "policy digest" in capsys.readouterr().err


def test_another_model_that_looks_is_refused(logged, tmp_path, capsys):
    script = tmp_path / "script.yaml"
    script.write_text("[{}]\n")
    assert replay(*logged, tmp_path, "--vlm", f"scripted:{script}") == 2
    assert "vision-language model" in capsys.readouterr().err


def test_a_generation_that_is_not_in_the_log_is_refused(logged, tmp_path, capsys):
    assert replay(logged[0], "nothing", tmp_path) == 2
    assert "no such generation" in capsys.readouterr().err


def test_without_the_key_of_the_log_no_prompt_is_the_right_one(logged, tmp_path):
    alone = tmp_path / "audit.jsonl"
    alone.write_bytes(logged[0].read_bytes())
    assert replay(alone, logged[1], tmp_path) == 2
    assert not alone.with_name("audit.jsonl.key").exists()


def test_the_first_different_decision_is_reported(pipe):
    of = remembered(pipe, load_policy("glyphs"), Named(0.0))
    came = regenerate(of, [PROMPTS[1]], pipe, load_policy("glyphs"), Named(0.9))
    (parting,) = came.partings
    first = next(record["step"] for record in of.records if record["event"] == "query")
    assert parting.image == 0
    assert parting.step == first
    assert parting.recorded == "none"
    assert parting.now.startswith("steer")


def test_an_image_with_something_sensitive_is_not_made_again(pipe):
    glyphs = load_policy("glyphs").resolved()
    star, *others = glyphs["categories"]
    sensitive = star | {"sensitive": True, "action": "block", "still_present": "block"}
    policy = Policy.model_validate(glyphs | {"categories": [sensitive, *others]})
    of = remembered(pipe, policy, ScriptedBackend([{"star": 0.9}]))
    with pytest.raises(AuditError, match="sensitive"):
        regenerate(of, [PROMPTS[1]], pipe, policy, ScriptedBackend([{"star": 0.9}]))


def test_a_record_without_prompts_can_not_be_checked(pipe):
    glyphs = load_policy("glyphs").resolved()
    policy = Policy.model_validate(glyphs | {"audit": {"prompt": "none"}})
    of = remembered(pipe, policy, Named(0.0))
    with pytest.raises(AuditError, match="keeps nothing about the prompt"):
        matching_prompts(of, PROMPTS[1], b"")


def test_a_call_without_a_seed_is_not_made_again(pipe):
    sink = MemorySink()
    with Guard("glyphs", vlm=Named(0.0), audit=sink) as guard, guard.attached(pipe):
        pipe(PROMPTS[1], num_inference_steps=STEPS)
        with pytest.raises(AuditError, match="no seed"):
            recorded(sink.records, guard.last.request)
