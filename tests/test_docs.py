"""The examples of the documentation run, and what the README quotes is what the program prints."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import onepass
from onepass import rules

README = (Path(__file__).parent.parent / "README.md").read_text()


def modules():
    for module in pkgutil.walk_packages(onepass.__path__, "onepass."):
        if not module.name.endswith("__main__") and not module.name.startswith("onepass.study"):
            yield module.name


# The forms for other frameworks: their examples run where the frameworks are, by `make test-frameworks`.
FRAMEWORKS = ("jax", "keras", "mxnet", "optax", "paddle", "tensorflow")


@pytest.mark.parametrize("name", ["onepass", *modules()])
def test_docstring_examples(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in FRAMEWORKS:
            raise
        pytest.skip(f"{error.name} is not in this environment")
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_readme_examples_run_in_order():
    scope = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert callable(scope["two_moons"])


def test_readme_quotes_the_task_that_is_in_the_examples():
    example = (Path(__file__).parent.parent / "examples" / "my_task.py").read_text().rstrip()
    assert example in README
    assert len(example.splitlines()) <= 20


def test_readme_quotes_the_equations_that_are_printed():
    quoted = re.search(r"\$ onepass show adamw\n(.*?)\n\$", README, re.DOTALL)
    assert quoted
    assert quoted[1] == onepass.equations("adamw")


def test_readme_quotes_the_rule_as_it_is():
    def body(source):
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        (adam,) = [function for function in functions if function.name == "adam"]
        statements = adam.body[1:] if ast.get_docstring(adam) else adam.body
        return [ast.unparse(adam.args), *map(ast.unparse, statements)]

    quoted = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def adam" in block)
    assert body(quoted) == body(inspect.getsource(inspect.getmodule(rules.adam.function)))
