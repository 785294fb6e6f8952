"""Hooks steer inside the cross-attention layers of a network, which read the prompt."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from dnp_guard.hosts.kdiffusion import layers
from dnp_guard.hosts.kdiffusion.layers import Layers
from dnp_guard.steering.attention import Part


class Attention(nn.Module):
    """A stand-in for cross-attention: a layer that adds the mean of the prompt to the picture, and projects the sum."""

    def __init__(self):
        super().__init__()
        self.to_out = nn.Linear(4, 4)

    def forward(self, x, context=None):
        return self.to_out(x + context.mean(1, keepdim=True))


class Network(nn.Module):
    """A network with a single layer, which reads the prompt."""

    def __init__(self):
        super().__init__()
        self.attn2 = Attention()

    def forward(self, x, context):
        return self.attn2(x, context=context)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def given():
    return torch.randn(2, 3, 4), torch.randn(2, 5, 4)


@pytest.fixture
def parts():
    return [Part((0,), torch.randn(1, 5, 4), 8.0, 3.0, 0.6)]


def first_row(_context):
    return {0: 0, 1: 1}


def test_an_evaluation_of_the_same_thread_is_steered(network, given, parts):
    plain = network(*given)
    with Layers(network).steered(parts, first_row):
        assert not torch.equal(network(*given)[0], plain[0])


def test_an_evaluation_of_another_thread_keeps_every_bit(network, given, parts):
    plain = network(*given)
    with Layers(network).steered(parts, first_row), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(network, *given).result(), plain)


def test_arithmetic_that_fails_leaves_the_evaluation_as_it_was_and_is_told(network, given, parts, monkeypatch):
    error = RuntimeError("out of memory")

    def fails(*_):
        raise error

    monkeypatch.setattr(layers, "normalised", fails)
    plain = network(*given)
    with Layers(network).steered(parts, first_row) as steering:
        assert torch.equal(network(*given), plain)
    assert steering.failure is error
