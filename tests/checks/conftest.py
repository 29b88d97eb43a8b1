"""The tests of checks record outcomes in a file of their own, never in the reader's."""

import pytest


@pytest.fixture(autouse=True)
def _own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("QWENKIT_PROGRESS", str(tmp_path / "deep" / "progress.json"))
