"""The compiled kernels share their work between threads, so they are tested with more than one."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _several_threads(request):
    before = torch.get_num_threads()
    if request.path.stem in ("test_kernels", "test_linear"):
        torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)
