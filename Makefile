# `make train` and `make test` do all the set-up they need on a machine with nothing but Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The oldest supported Lightning stands beside the newest, and is put in front of it for some of the tests.
OLDEST := $(VENV)/lightning-2.5.0
OLDEST_TESTS := tests/callbacks tests/integration/test_trainer_options.py
# An environment without any extra, for the tests of what works there.
BARE := .venv-bare
BARE_TESTS := tests/integration/test_bare.py tests/commands/test_export.py tests/callbacks/test_averaging.py
# An environment with other people's packages, for the tests of what works beside them.
EXTRAS := .venv-extras
EXTRAS_TESTS := tests/integration/test_examples.py tests/integration/test_trackers.py tests/integration/test_launchers.py

.PHONY: setup train test test-bare test-extras lint docs clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(OLDEST): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --target $@ pytorch-lightning==2.5.0
	touch $@

$(BARE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BARE)
	$(BARE)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(BARE)/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest hypothesis
	touch $@

$(EXTRAS)/.installed: pyproject.toml constraints.txt .github/requirements/ecosystem.txt
	$(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(EXTRAS)/bin/python -m pip install --quiet --constraint constraints.txt --requirement .github/requirements/ecosystem.txt --editable '.[dev]'
	touch $@

train: setup
	$(BIN)/sparse-rnn-train

test: lint $(OLDEST) test-bare
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8
	PYTHONPATH=$(OLDEST) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 -m 'not slow' $(OLDEST_TESTS)

test-bare: $(BARE)/.installed
	$(BARE)/bin/python -m pytest $(BARE_TESTS)

# Tests that need other people's packages; without them they are skipped.
test-extras: $(EXTRAS)/.installed
	$(EXTRAS)/bin/python -m pytest $(EXTRAS_TESTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(BARE) $(EXTRAS) build dist *.egg-info
