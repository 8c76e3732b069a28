"""The examples of the documentation run, and what the README quotes is what the program prints."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import onepass

README = (Path(__file__).parent.parent / "README.md").read_text()


def modules():
    for module in pkgutil.walk_packages(onepass.__path__, "onepass."):
        if not module.name.endswith("__main__") and not module.name.startswith("onepass.study"):
            yield module.name


@pytest.mark.parametrize("name", ["onepass", *modules()])
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


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
    import inspect

    from onepass import rules

    body = inspect.getsource(rules.adam.function).partition('"""\n')[2].rpartition("\n")[0].strip()
    body = body.partition('"""\n')[2] if '"""' in body else body
    assert body.strip() in README
