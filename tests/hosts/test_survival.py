"""A guard keeps working after changes of its pipeline, such as data type, offloading, compilation and adapters."""

import copy
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from tests.hosts.tiny import draw, footprint, tiny
from tests.hosts.tiny.looks import SeesAStarOnce
from tests.policies import policy

pytestmark = pytest.mark.models


@pytest.fixture
def pipe():
    return copy.deepcopy(tiny("StableDiffusionPipeline"))


def guarded(**arguments):
    return Guard(policy(guidance={"hold": 9}), vlm=SeesAStarOnce(), **arguments)


def steered(pipe, **arguments):
    """Return the indices of the images, of three, that a guard changes; fail if the guard records a failure."""
    plain, sink = draw(pipe, **arguments), MemorySink()
    with guarded(audit=sink).attached(pipe):
        seen = draw(pipe, **arguments)
    assert "degraded" not in {record["event"] for record in sink.records}
    return [
        index for index, (a, b) in enumerate(zip(plain, seen, strict=True)) if (np.asarray(a) != np.asarray(b)).any()
    ]


def test_another_type_of_numbers(pipe):
    pipe.to(torch.bfloat16)
    assert steered(pipe) == [1]


def test_the_guard_stays_when_the_pipeline_is_moved(pipe):
    pipe.callback_on_step_end = guard = guarded()
    assert pipe.to("cpu", torch.float64).callback_on_step_end is guard
    pipe.callback_on_step_end = None


def test_weights_that_are_fetched_layer_by_layer(pipe):
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_module

    plain = draw(pipe)
    for part in (pipe.vae, pipe.unet, pipe.text_encoder):
        cpu_offload(part, torch.device("cpu"))
    with guarded().attached(pipe):
        seen = draw(pipe)
    for part in (pipe.vae, pipe.unet, pipe.text_encoder):
        remove_hook_from_module(part, recurse=True)
    assert [bool((a == b).all()) for a, b in zip(plain, seen, strict=True)] == [True, False, True]


def test_whole_models_that_are_fetched_one_after_another(pipe):
    from accelerate import cpu_offload_with_hook

    _, first = cpu_offload_with_hook(pipe.text_encoder, "cpu")
    _, second = cpu_offload_with_hook(pipe.unet, "cpu", prev_module_hook=first)
    assert steered(pipe) == [1]
    second.remove()
    first.remove()


def test_steering_compiles_once_more_and_then_no_more(pipe):
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend=backend)
    draw(pipe)
    draw(pipe)
    counts = [len(compiled)]
    for _ in range(3):  # the extra evaluation is of one image, which is a shape of its own
        with guarded().attached(pipe):
            draw(pipe)
        counts.append(len(compiled))
    torch._dynamo.reset()
    assert [after - before for before, after in pairwise(counts)][1:] == [0, 0]


def test_a_compiled_denoiser_is_steered(pipe):
    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    assert steered(pipe) == [1]
    torch._dynamo.reset()


def test_a_lora(pipe, tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    other = copy.deepcopy(pipe)
    other.unet.add_adapter(LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_k", "to_v"]))
    for name, weights in other.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, generator=torch.Generator().manual_seed(0))
    other.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(other.unet))
    plain = draw(pipe)
    pipe.load_lora_weights(tmp_path)
    assert (draw(pipe) != plain).any()
    assert steered(pipe) == [1]


def test_a_word_of_ones_own(pipe):
    pipe.load_textual_inversion(
        {"<mine>": torch.randn(1, 32, generator=torch.Generator().manual_seed(0))}, token="<mine>"
    )
    assert steered(pipe, prompt=["a red circle", "<mine>", "a green cross"]) == [1]


def test_embeddings_in_place_of_prompts(pipe):
    embeddings, _ = pipe.encode_prompt(["a red circle", "a blue square", "a green cross"], "cpu", 1, False)
    assert steered(pipe, prompt=None, prompt_embeds=1.1 * embeddings) == [1]


def test_prompts_longer_than_the_encoder_reads(pipe):
    assert steered(pipe, prompt=["a red circle " * 40] * 3) == [1]


def test_one_guard_keeps_the_calls_of_threads_apart(pipe):
    pipes = [pipe, copy.deepcopy(pipe)]
    plain = [
        draw(pipeline, prompt=[f"a {word} circle"] * 3) for pipeline, word in zip(pipes, ("red", "blue"), strict=True)
    ]
    guard, seen, reports = Guard(policy(), vlm=SeesNothing()), {}, {}
    before = [footprint(pipeline) for pipeline in pipes]

    def work(at):
        with guard.attached(pipes[at]):
            seen[at] = draw(pipes[at], prompt=[f"a {('red', 'blue')[at]} circle"] * 3)
        reports[at] = guard.last.request

    threads = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bool((plain[at] == seen[at]).all()) for at in range(2)] == [True, True]
    assert reports[0] != reports[1]
    assert [footprint(pipeline) for pipeline in pipes] == before


def test_calls_that_share_a_scheduler_and_end_in_the_order_they_began_keep_their_looks(pipe):
    other = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    draw(pipe)  # diffusers keeps the arguments of its latest call on the pipeline
    guard, reports, before = Guard(policy(), vlm=SeesNothing()), {}, footprint(pipe)
    begun, joined, ended = threading.Event(), threading.Event(), threading.Event()

    def first(_pipe, step, _timestep, tensors):
        if step == 1:
            begun.set()
            assert joined.wait(60)
        return tensors

    def second(_pipe, step, _timestep, tensors):
        if step == 1:
            joined.set()
            assert ended.wait(60)
        return tensors

    def work(of, callback, after):
        assert after is None or after.wait(60)
        with guard.attached(of):
            draw(of, callback_on_step_end=callback)
        reports[callback] = [look.step for look in guard.last.images[0].queries]
        ended.set()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [
            threading.Thread(target=work, args=(pipe, first, None)),
            threading.Thread(target=work, args=(other, second, begun)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert reports == {first: [2, 3, 5, 6, None], second: [2, 3, 5, 6, None]}
    assert footprint(pipe) == before


class SeesNothing:
    def ask(self, images, questions):
        return [[0.0] * len(questions) for _ in images]
