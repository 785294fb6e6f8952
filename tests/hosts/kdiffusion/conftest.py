"""The embedded model as the samplers of k-diffusion see it."""

import pytest

from tests.hosts.ksampling import Conditioning


@pytest.fixture(scope="module")
def words(shared_pipe):
    return Conditioning(shared_pipe)
