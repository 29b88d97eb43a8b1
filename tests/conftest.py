"""Shared set-up: shape annotations of the model are checked in every test."""

import jaxtyping

# before anything imports qwenkit.model: jaxtyping's shapes then raise where they are broken
jaxtyping.install_import_hook("qwenkit.model", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Random numbers are the same in each test, whatever ran before it."""
    torch.manual_seed(0)
