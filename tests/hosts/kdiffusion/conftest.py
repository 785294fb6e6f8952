"""Provide the embedded text encoder and decoder to the tests with k-diffusion's samplers."""

import pytest

from tests.hosts.ksampling import Conditioning


@pytest.fixture(scope="module")
def words(shared_pipe):
    return Conditioning(shared_pipe)
