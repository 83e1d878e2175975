"""Simulated swarms run in one thread each."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Keep torch from spreading 25 elements over all cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
