# Everything a developer runs. Each target installs what it needs into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The GPU's kernels on CPU tensors, in Triton's interpreter.
INTERPRETED := TRITON_INTERPRET=1 ONEPASS_BACKEND=triton

.DEFAULT_GOAL := help

.PHONY: help demo test test-integration test-frameworks check snapshots bench bench-frameworks bench-gpu format clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: its pin must be met before anything else asks for a range of it.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[study]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## install, then find the optimizer that suits a small CNN on handwritten digits
	$(BIN)/onepass compare digits

test: $(VENV)/.dev  ## run the tests
	$(BIN)/python -m pytest -n auto
	if [ "$$(uname)" = Linux ]; then $(INTERPRETED) $(BIN)/python -m pytest -n auto tests/kernels tests/gpu; fi

snapshots: $(VENV)/.dev  ## write the GPU kernels' source as it is emitted now, for git diff
	ONEPASS_WRITE_SNAPSHOTS=1 $(BIN)/python -m pytest -n 0 tests/gpu/test_gpu_offline.py -k source

test-integration: $(VENV)/.integration  ## run the tests with transformers, Lightning and accelerate
	$(BIN)/python -m pytest tests/integration

$(VENV)/.integration: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[integration]'
	@touch $@ $(VENV)/.dev $(VENV)/.demo

# Each framework has an environment of its own, for no two of them agree on what else there may be. MXNet ends with
# Python 3.11, where JAX begins.
FRAMEWORKS := jax tensorflow paddle mxnet
FRAMEWORK_PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo $(PYTHON))

test-frameworks: $(FRAMEWORKS:%=test-%)  ## run the tests of each framework (test-jax, ...), in an environment of its own

$(FRAMEWORKS:%=test-%): test-%: .venvs/%/.ready
	@.venvs/$*/bin/python -m pytest tests/frameworks/test_documentation.py \
		$(wildcard tests/frameworks/test_$**.py) $(if $(filter tensorflow,$*),$(wildcard tests/frameworks/test_keras*.py)) \
		|| { echo "make test-$*: the tests of $* failed" >&2; exit 1; }

# onepass alone: it serves a framework without torch and Numba.
.venvs/%/.ready: tests/frameworks/requirements/%.txt pyproject.toml
	$(FRAMEWORK_PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.PRECIOUS: .venvs/%/.ready

check: $(VENV)/.dev  ## format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## measure, and put the table and the plot into the README; bench-frameworks does the rest
	$(BIN)/python -m benchmarks.cpu --readme

# After `make bench`, on a quiet machine: each framework in its environment, NumPy in JAX's.
bench-frameworks: .venvs/jax/.ready .venvs/tensorflow/.ready .venvs/paddle/.ready  ## measure the other frameworks, and put the table into the README
	.venvs/jax/bin/python -m benchmarks.frameworks numpy
	.venvs/jax/bin/python -m benchmarks.frameworks jax
	$(if $(wildcard benchmarks/frameworks/keras.py),.venvs/tensorflow/bin/python -m benchmarks.frameworks keras)
	$(if $(wildcard benchmarks/frameworks/paddle.py),.venvs/paddle/bin/python -m benchmarks.frameworks paddle)
	.venvs/jax/bin/python -m benchmarks.frameworks --readme

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --no-deps pytorch_optimizer torch-optimi
	@touch $@

bench-gpu: $(VENV)/.bench  ## measure the GPU's kernels, where there is a CUDA device
	$(BIN)/python -m benchmarks.gpu

format: $(VENV)/.dev  ## format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment, caches and runs
	rm -rf $(VENV) .venvs runs .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
