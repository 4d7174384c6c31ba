# Two commands do all the set-up: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := $(VENV)/.extras

.PHONY: help demo test lint types layers tests clean
help:
	@echo "make demo    install, then run two searches on the shipped models"
	@echo "make test    install, then lint, types, layers and tests"

demo: $(INSTALLED)
	@$(BIN)/mergeflow demo

test: lint types layers tests

lint: $(INSTALLED)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

types: $(INSTALLED)
	@$(BIN)/mypy --no-error-summary

layers: $(INSTALLED)
	@$(BIN)/lint-imports > $(VENV)/layers.log || { cat $(VENV)/layers.log; exit 1; }

tests: $(EXTRAS)
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest

# The exact versions of requirements.lock, then this project itself.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name it with make PYTHON=python3.11"; exit 2; }
	@echo "Installing into $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -r requirements.lock 2> $(VENV)/install.log \
	  | awk '/^ *(Downloading|Using cached|Processing) / \
	      { if (++n % 25 == 0) { print "  " n " packages fetched"; fflush() } }' \
	  || { tail -n 20 $(VENV)/install.log; exit 1; }
	@$(BIN)/pip install -qq --no-deps -e .
	@touch $@

# Dask, Ray, torchao and playwright: 370 MB that a first look does not need, and that some tests skip
# without.
$(EXTRAS): $(INSTALLED) requirements-extras.lock
	@echo "Installing what the extras add"
	@$(BIN)/pip install -q -r requirements-extras.lock 2> $(VENV)/install.log \
	  || { tail -n 20 $(VENV)/install.log; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
