"""A call's report is kept per thread or task and on the call's output, and is dropped with the guard."""

from __future__ import annotations

import asyncio
import gc
import pickle

import torch

from dnp_guard import Guard, Report
from dnp_guard.generation.state import Request
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy


def made():
    return Guard(policy(), vlm=ScriptedBackend([{}]))


def call(pipe, **more):
    return pipe("a lake", num_inference_steps=2, height=32, width=32, output_type="np", **more)


def test_a_call_in_another_thread_brings_its_report_along():
    pipe = tiny("StableDiffusionPipeline")
    with made() as guard, guard.attached(pipe):
        output = asyncio.run(asyncio.to_thread(call, pipe))
    assert guard.last is None
    assert output.dnp_guard.decision == "clean"


def test_a_report_on_an_output_changes_nothing_else_of_it():
    pipe = tiny("StableDiffusionPipeline")
    plain = call(pipe, generator=torch.Generator().manual_seed(0))
    with made() as guard, guard.attached(pipe):
        output = call(pipe, generator=torch.Generator().manual_seed(0))
    assert list(output.keys()) == list(plain.keys())
    again = pickle.loads(pickle.dumps(output))  # noqa: S301 (its own)
    assert (again.images == plain.images).all()
    assert again.dnp_guard == output.dnp_guard


def test_a_tuple_has_no_room_for_a_report():
    pipe = tiny("StableDiffusionPipeline")
    with made() as guard, guard.attached(pipe):
        output = call(pipe, return_dict=False)
    assert type(output) is tuple
    assert guard.last.decision == "clean"


def test_guards_that_are_gone_leave_no_report():
    def generate():
        with made() as guard:
            guard.start(Request(1, {"name": "test"})).abandon("over")
            driver = guard.start(Request(1, {"name": "test"}))
            driver.abandon("over")
            guard.finished(driver)
            assert guard.last is not None

    def reports():
        gc.collect()
        return sum(type(item) is Report for item in gc.get_objects())

    before = reports()
    for _ in range(20):
        generate()
    assert reports() <= before + 1


def test_each_context_has_its_own_latest_report():
    async def generate(guard, images):
        driver = guard.start(Request(images, {"name": "test"}))
        driver.abandon("over")
        guard.finished(driver)
        await asyncio.sleep(0)
        return len(guard.last.images)

    async def both(guard):
        return await asyncio.gather(generate(guard, 1), generate(guard, 2))

    with made() as guard:
        assert asyncio.run(both(guard)) == [1, 2]
