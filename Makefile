# Every target sets up what it needs, once, in .venv; `make` alone lists the targets.

PYTHON ?= python3
RECIPE ?= configs/recipes/quickstart.yaml
ARGS ?=
# Processes of `make test`; 0 runs the tests one after the other in one process.
JOBS ?= 2

# Which vLLM `make vllm-env` installs: gpu or cpu.
VLLM ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
# uv reads none of pip's settings. Where pip is told of a folder with wheels, PyTorch's CPU build is looked for there;
# elsewhere uv knows PyTorch's own index.
WHEELS = $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))

BIN := .venv/bin
QUICK_BENCHMARKS := gpu driver learner end_to_end experts verifiers publish engines drafts asynchronous reward_pool quickstart compare_algorithms critic plan elastic book scaling reward_hacks imports eta rendering learner_floor decoding
VLLM_BIN := .vllm-env/bin
VLLM_INSTALLED := .vllm-env/.installed-$(VLLM)
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
INSTALLED_DATA := .venv/.installed-data

# The third artist's emoji of `make recipe` come from npm; the other data from PyPI.
NPM ?= npm
FLUENT := @lobehub/fluent-emoji-3d
# Draws the diagrams of `make docs` in the reader's browser; the site has a copy, so that it asks no other server for it.
MERMAID := 11.17.2
MERMAID_FILE := build/mermaid-$(MERMAID).min.js

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart recipe compare-algorithms benchmarks-quick setup test test-slow test-lean test-chaos test-browser test-mutants test-release docs vllm-env test-vllm lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Settings: PYTHON=python3.12 (to set up with), RECIPE=FILE and ARGS='rl.steps=20' (make quickstart), ARGS='-k name' JOBS=2 (make test)"

quickstart: $(INSTALLED)  ## set up, then train, evaluate and export a tiny thinking Kimi-VL (minutes, CPU)
	$(BIN)/thinkvl run $(RECIPE) $(ARGS)

recipe: $(INSTALLED_DATA) node_modules/$(FLUENT)/package.json  ## fetch real data, then run every stage of the recipe on it (about half an hour, CPU)
	$(BIN)/thinkvl run configs/recipes/real_data.yaml $(ARGS)

compare-algorithms: $(INSTALLED)  ## every RL algorithm on the quickstart's task, over seeds (about 45 minutes, resumable)
	$(BIN)/python benchmarks/compare_algorithms.py $(ARGS)

benchmarks-quick: $(INSTALLED_DEV)  ## every benchmark at its smallest, to see that it runs (minutes)
	@set -e; for name in $(QUICK_BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py --quick; done

setup: $(INSTALLED_DEV)  ## install everything that working on the code needs

test: $(INSTALLED_DEV)  ## set up, then run the tests
	$(BIN)/python -m pytest -m "not slow and not chaos and not browser" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(INSTALLED_DEV)  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

NF4_TESTS := tests/rl/learner/test_nf4.py tests/integration/test_nf4_run.py
test-lean: $(INSTALLED_DEV)  ## install torchao and bitsandbytes into .venv, then run the tests of few bits
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[lean,qlora]'
	$(BIN)/python -m pytest tests/rl/learner/test_low_bit_adamw.py $(NF4_TESTS) $(ARGS)

test-chaos: $(INSTALLED_DEV)  ## kill runs, workers and ranks, and compare what they end in (about 20 minutes)
	$(BIN)/python -m pytest -m chaos $(ARGS)

# The browser itself is a system package: `apt install chromium`, or the path of another in THINKVL_CHROMIUM.
test-browser: $(INSTALLED_DEV)  ## install playwright into .venv, then look at the pages in a headless Chromium; skipped without one
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser -rs $(ARGS)

test-mutants: $(INSTALLED_DEV)  ## plant faults in copies of the code, one at a time; tests must notice 95 % (about 10 minutes)
	$(BIN)/python tests/mutants/run_mutants.py $(ARGS)

# Outside of the checkout: what is imported there is what was installed. `plan` reads a recipe of the wheel and its data.
test-release: $(BIN)/python  ## build wheel and sdist, install the wheel into a fresh environment, and use it there (minutes)
	rm -rf dist .release-env
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv --clear .release-env
	.release-env/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd / && "$(CURDIR)/.release-env/bin/thinkvl" --version
	cd / && "$(CURDIR)/.release-env/bin/thinkvl" --help >/dev/null
	cd / && "$(CURDIR)/.release-env/bin/thinkvl" plan \
	  "$$("$(CURDIR)/.release-env/bin/python" -c 'import configs; print(configs.__path__[0])')/recipes/quickstart.yaml"
	rm -rf .release-env

docs: $(INSTALLED_DEV) $(MERMAID_FILE)  ## build the site of docs/ into site/; a broken link is an error
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 THINKVL_MERMAID=$(MERMAID_FILE) $(BIN)/python -m mkdocs build --quiet

vllm-env: $(VLLM_INSTALLED)  ## install vLLM beside ThinkVL, in .vllm-env (2 GB; VLLM=cpu or VLLM=gpu)

# Where the installation fails there is nothing to test: that, and nothing else, is no failure here.
test-vllm:  ## set up .vllm-env, then run the tests of the vLLM engine
	@if $(MAKE) --no-print-directory vllm-env >.vllm-env.log 2>&1; then \
	  rm -f .vllm-env.log; PATH="$(CURDIR)/$(VLLM_BIN):$$PATH" $(VLLM_BIN)/python -m pytest tests/vllm_engine $(ARGS); \
	else \
	  tail -n 30 .vllm-env.log; echo "vLLM could not be installed (above): its tests are skipped"; \
	fi

lint: $(INSTALLED_DEV)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(INSTALLED_DEV)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, .vllm-env, node_modules and caches; runs/ stays
	rm -rf .venv .vllm-env .release-env .vllm-env.log node_modules site .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps live in .venv and are written last: a set-up that was cut short runs again, and so does an outdated one.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(INSTALLED) $@

$(INSTALLED_DATA): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[data]'
	@touch $(INSTALLED) $@

node_modules/$(FLUENT)/package.json:
	@command -v $(NPM) >/dev/null || { echo "$(NPM) was not found: it fetches $(FLUENT), pictures that the recipe is evaluated on; on Debian and Ubuntu: apt install npm"; exit 1; }
	$(NPM) install --no-save --no-package-lock --no-audit --no-fund --silent $(FLUENT)@1.1.0

$(MERMAID_FILE):
	@command -v $(NPM) >/dev/null || { echo "$(NPM) was not found: it fetches mermaid, which draws the diagrams of the site; on Debian and Ubuntu: apt install npm"; exit 1; }
	@mkdir -p build
	cd build && $(NPM) pack --silent mermaid@$(MERMAID) >/dev/null
	tar -xzOf build/mermaid-$(MERMAID).tgz package/dist/mermaid.min.js >$@
	@rm build/mermaid-$(MERMAID).tgz

# uv and not pip: only uv can leave out what a package asks for.
$(VLLM_INSTALLED): pyproject.toml $(wildcard requirements/vllm-$(VLLM)*.txt)
	$(PYTHON) -m venv --clear .vllm-env
	$(VLLM_BIN)/python -m pip install --quiet uv==0.13.9
	UV_FIND_LINKS="$(WHEELS)" $(VLLM_BIN)/uv pip install --python $(VLLM_BIN)/python --no-progress \
	  $(if $(filter cpu,$(VLLM)),$(if $(WHEELS),,--torch-backend cpu)) \
	  --override requirements/vllm-$(VLLM)-overrides.txt -c requirements/vllm-$(VLLM)-constraints.txt \
	  -r requirements/vllm-$(VLLM).txt -e '.[dev]'
	@touch $@

# --clear: where python is missing from an existing .venv, that folder is of no use.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. ThinkVL needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ThinkVL needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv; PyTorch and Ray are large, so the first time takes a few minutes."
	@$(PYTHON) -m venv --clear .venv || { \
	  rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
