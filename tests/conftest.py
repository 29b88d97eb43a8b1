"""Shared set-up: shape annotations of the model are checked in every test."""

import os
import shutil
import signal

import jaxtyping

# How long a stage takes depends on the machine, and what a test compares must not.
os.environ.setdefault("QWENKIT_QUIET", "1")

# before anything imports qwenkit.model: jaxtyping's shapes then raise where they are broken
jaxtyping.install_import_hook("qwenkit.model", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture
def ctrl_c():
    """Let SIGINT raise KeyboardInterrupt, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def one_thread():
    """Let torch compute with one thread while a module's tests run.

    A model of a few thousand weights gains nothing from more, and on a busy machine more is far
    slower; and sums of several threads may round differently than another process's.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A toy checkpoint's folder; a test that changes it takes a copy."""
    from fixtures_toy import toy_of

    return toy_of(tmp_path_factory)


@pytest.fixture(scope="session")
def node():
    """The path of Node.js, or skip loudly; in CI its absence is a failure."""
    path = shutil.which("node")
    if path is None:
        stop = pytest.fail if os.environ.get("QWENKIT_REQUIRE_BROWSER") else pytest.skip
        stop("NO NODE: Node.js is not installed, the tests of the JavaScript do not run")
    return path


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Random numbers are the same in each test, whatever ran before it."""
    torch.manual_seed(0)
