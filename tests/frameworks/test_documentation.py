"""The examples of a framework's files and of the README run where the framework is."""

import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()

# For each framework, what must be there as well for a file of its to be of use.
FILES = {
    "functional.jax": ["jax"],
    "functional.optax": ["jax", "optax"],
    "jax": ["jax", "optax"],
    "functional.tensorflow": ["tensorflow"],
    "functional.keras": ["keras"],
    "keras": ["keras"],
    "functional.paddle": ["paddle"],
    "functional.paddle_optimizer": ["paddle"],
    "paddle": ["paddle"],
    "functional.mxnet": ["mxnet"],
}
NEEDS = {"jax": ["optax"]}


def require(names):
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not in this environment")


@pytest.mark.parametrize("file", FILES)
def test_docstring_examples(file):
    require(FILES[file])
    require([f"onepass.{file}"])
    assert doctest.testmod(importlib.import_module(f"onepass.{file}"), optionflags=doctest.ELLIPSIS).failed == 0


BLOCKS = re.findall(r"```python (\w+)\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("framework", "block"), BLOCKS, ids=[framework for framework, _ in BLOCKS])
def test_readme_examples(framework, block):
    require([framework, *NEEDS.get(framework, [])])
    exec(compile(block, "README.md", "exec"), {})
