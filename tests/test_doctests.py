"""The examples in the docstrings of qwenkit: each does what it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import qwenkit

MODULES = [module.name for module in pkgutil.walk_packages(qwenkit.__path__, "qwenkit.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    found = doctest.DocTestFinder(exclude_empty=False).find(module)
    for example in found:
        torch.manual_seed(0)
        runner.run(example)
    assert runner.failures == 0  # what failed is printed
    assert sum(len(one.examples) for one in found) == inspect.getsource(module).count(">>> ")
