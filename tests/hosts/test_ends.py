"""For a query, the guard runs the end of the pipeline's own call only if decoding the prediction needs it."""

import pytest
import torch

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import tiny
from tests.policies import policy

pytestmark = pytest.mark.models


@pytest.fixture
def calls(monkeypatch):
    """Return a tiny pipeline, and a function that counts its calls.

    The function guards a call with queries at the given shares of the run, and also counts the calls that the guard
    makes for these queries.
    """
    pipe = tiny("StableDiffusionPipeline")

    def count(*queries):
        made = []
        own = type(pipe).prepare_latents
        monkeypatch.setattr(
            type(pipe), "prepare_latents", lambda *args, **kwargs: made.append(1) or own(*args, **kwargs)
        )
        with Guard(policy(queries={"steps": list(queries)}), vlm=ScriptedBackend([{"star": 0.0}])).attached(pipe):
            pipe("a circle", num_inference_steps=5, generator=torch.Generator().manual_seed(0), height=32, width=32)
        monkeypatch.undo()
        return len(made)

    return pipe, count


def test_an_end_that_only_undoes_the_scaling_is_not_run_for_a_query(calls):
    _, count = calls
    assert count(0.2, 0.4, 0.6, 0.8) == count(0.2)


def test_an_end_of_another_kind_is_run_for_each_query(calls):
    pipe, count = calls
    # The pipeline ignores these, so that its end differs from the autoencoder's scaling.
    pipe.vae.register_to_config(latents_mean=[0.5] * 4, latents_std=[1.0] * 4)
    assert count(0.2, 0.4, 0.6, 0.8) == count(0.2) + 3
