# Every target sets up what it needs, once, in .venv; `make` alone lists the targets.

PYTHON ?= python3
RECIPE ?= configs/recipes/quickstart.yaml
ARGS ?=

BIN := .venv/bin
QUICK_BENCHMARKS := gpu learner verifiers publish engines reward_pool quickstart compare_algorithms
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart compare-algorithms benchmarks-quick setup test test-slow test-chaos lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Settings: PYTHON=python3.12 (to set up with), RECIPE=FILE and ARGS='rl.steps=20' (make quickstart), ARGS='-k name' (make test)"

quickstart: $(INSTALLED)  ## set up, then train, evaluate and export a tiny thinking Kimi-VL (minutes, CPU)
	$(BIN)/thinkvl run $(RECIPE) $(ARGS)

compare-algorithms: $(INSTALLED)  ## every RL algorithm on the quickstart's task, over seeds (about an hour, resumable)
	$(BIN)/python benchmarks/compare_algorithms.py $(ARGS)

benchmarks-quick: $(INSTALLED_DEV)  ## every benchmark at its smallest, to see that it runs (minutes)
	@set -e; for name in $(QUICK_BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py --quick; done

setup: $(INSTALLED_DEV)  ## install everything that working on the code needs

test: $(INSTALLED_DEV)  ## set up, then run the tests
	$(BIN)/python -m pytest -m "not slow and not chaos" $(ARGS)

test-slow: $(INSTALLED_DEV)  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

test-chaos: $(INSTALLED_DEV)  ## kill a run at many moments and compare what it ends in (about 15 minutes)
	$(BIN)/python -m pytest -m chaos $(ARGS)

lint: $(INSTALLED_DEV)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(INSTALLED_DEV)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps live in .venv and are written last: a set-up that was cut short runs again, and so does an outdated one.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(INSTALLED) $@

# --clear: where python is missing from an existing .venv, that folder is of no use.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. ThinkVL needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ThinkVL needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv; PyTorch and Ray are large, so the first time takes a few minutes."
	@$(PYTHON) -m venv --clear .venv || { \
	  rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
