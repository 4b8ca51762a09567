# Every command of this house. `make` alone lists them; `make run` and `make test` are the two that matter.
#
# A machine needs Python 3.11 to 3.14 and a package registry, nothing else. The environment is made in .venv, once, by
# scripts/environment.py, of the newest supported Python (or PYTHON=…) and of exactly what requirements.lock pins.

PYTHON ?=
WORKSPACE ?= examples/grocery

VENV ?= .venv
BIN := $(VENV)/bin
# Two at a time, each file as a whole, those that take longest first (`tests/parts.py`).
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
QUICK := -m "not slow and not trained and not process" --ignore tests/architecture

# Everything runs in UTC. None of the libraries calls home.
export TZ := UTC
export BENTOML_DO_NOT_TRACK := True
export FEAST_USAGE := False
export MLFLOW_DISABLE_TELEMETRY := true
# Packages are installed without bytecode; what a first run imports keeps it, so that the next process need not compile it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help env run test quick coverage test-clock check check-format check-lint check-types check-house format bench dist lock clean
.DEFAULT_GOAL := help

help: ## list these commands
	@echo 'Usage: make GOAL [PYTHON=python3.12] [VENV=.venv] [WORKSPACE=examples/grocery] [ARGS="--port 3001"]'
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## /  \1|/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

run: env ## everything from an empty machine to a server that answers: environment, data, features, training, registry
	@exec $(BIN)/opportune up -w $(WORKSPACE) $(ARGS)

test: env ## every test; says what it skipped and why (ARGS: some of them)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(SIDE_BY_SIDE))

quick: env ## the tests for work in between: what needs no server, no trained model and no patience (`make check` has the rules of the house)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(QUICK) $(SIDE_BY_SIDE) $(ARGS)

coverage: env ## the branches that the quick part runs, and their floor
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(QUICK) $(SIDE_BY_SIDE) --cov $(ARGS)

test-clock: env ## the tests of time, with the clock moved to a dozen hard moments (ARGS: others at these moments)
	@$(BIN)/python -m tests.moments $(ARGS)

check: check-format check-lint check-types check-house ## format, lint, types, and the rules of the house

check-format: env
	@$(BIN)/ruff format --check .

check-lint: env
	@$(BIN)/ruff check .

check-types: env
	@$(BIN)/mypy --python-version $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

check-house: env
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/architecture

format: env ## put the code in form and mend what the linter can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: env ## run the benchmarks; ARGS are theirs
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_decisions.py $(ARGS)

dist: env ## build the wheels (all, and the server alone) and the source archive into dist/, without a network
	@$(BIN)/python -m hatchling build -d dist
	@cd distributions/serve && $(abspath $(BIN))/python -m hatchling build -t wheel -d ../../dist

# Any Python can start the script; which one the environment is made of is the script's choice, or PYTHON's.
ENVIRONMENT = for python in python3 python3.14 python3.13 python3.12 python3.11 $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then exec $$python scripts/environment.py $(1); fi; done; \
	  echo 'environment: found no Python that runs: install one (3.11 to 3.14), or name it: make PYTHON=/path/to/python env' >&2; exit 1

env: ## make the environment, if it is not there yet (INSTALLER=pip, or the path of a uv, instead of the pinned uv)
	@$(call ENVIRONMENT,make --folder "$(VENV)" --python "$(PYTHON)" --installer "$(INSTALLER)")

lock: ## pin again after a change of pyproject.toml (ARGS=--upgrade takes newer versions), with uv
	@$(call ENVIRONMENT,lock --python "$(PYTHON)" $(ARGS))

clean: ## remove all that was made: environment, caches, builds, and what the examples keep in .opportune
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov build dist
	rm -rf examples/*/.opportune
	find features training serving pipelines tests benchmarks examples scripts -name __pycache__ -type d -prune -exec rm -rf {} +
