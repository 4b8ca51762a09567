# Every command of this house. `make` alone lists them; `make run` and `make test` are the two that matter.
#
# A machine needs Python 3.11 or newer and a package registry, nothing else. The environment is made in .venv, once,
# from requirements.lock, whose hashes pip must find right; its stamp is written last, so that an environment whose
# making was interrupted is made again from the start.

PYTHON ?= python3
WORKSPACE ?= examples/grocery
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
QUIET := $(if $(CI),--quiet)
# Two at a time, each file as a whole, those that take longest first (`tests/parts.py`).
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
QUICK := -m "not slow and not trained and not process"

# Everything runs in UTC. None of the libraries calls home.
export TZ := UTC
export BENTOML_DO_NOT_TRACK := True
export FEAST_USAGE := False
export MLFLOW_DISABLE_TELEMETRY := true

# The stamp holds the folder it was made for: an environment does not survive being moved.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(shell rm -f $(STAMP))
endif

.PHONY: help env run test quick check check-format check-lint check-types check-house format bench dist lock clean
.DEFAULT_GOAL := help

help: ## list these commands
	@echo 'Usage: make GOAL [PYTHON=python3.12] [WORKSPACE=examples/grocery] [ARGS="--port 3001"]'
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## /  \1|/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

run: $(STAMP) ## everything from an empty machine to a server that answers: environment, data, features, training, registry
	@exec $(BIN)/opportune up -w $(WORKSPACE) $(ARGS)

test: $(STAMP) ## every test, with branch coverage and its floor; says what it skipped and why (ARGS: some of them)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(ARGS),$(ARGS),--cov $(SIDE_BY_SIDE))

quick: $(STAMP) ## the tests for work in between: all that need neither servers nor a trained model
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(QUICK) $(SIDE_BY_SIDE) $(ARGS)

check: check-format check-lint check-types check-house ## format, lint, types, and the rules of the house

check-format: $(STAMP)
	@$(BIN)/ruff format --check .

check-lint: $(STAMP)
	@$(BIN)/ruff check .

check-types: $(STAMP)
	@$(BIN)/mypy

check-house: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/architecture

format: $(STAMP) ## put the code in form and mend what the linter can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(STAMP) ## run the benchmarks; ARGS are theirs
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_decisions.py $(ARGS)

dist: $(STAMP) ## build the wheel and the source archive into dist/, without a network
	@$(BIN)/python -m hatchling build -d dist

env: $(STAMP) ## make the environment, if it is not there yet
	@:

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "expected Python 3.11 or newer as \`$(PYTHON)\`, got $$($(PYTHON) --version 2>&1 | tail -n 1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 GOAL" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "\`$(PYTHON)\` cannot make environments: it lacks ensurepip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@if [ -e $(VENV) ] && [ ! -e $(STAMP) ]; then echo "environment: the one in $(VENV) is not complete, making it again"; rm -rf $(VENV); fi
	@rm -f $(STAMP)
	@echo "environment: installing what requirements.lock pins into $(VENV) (once; a few minutes)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $(QUIET) --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@$(PIP) check $(QUIET)
	@$(BIN)/python -c 'import lightgbm' || { \
	  echo "LightGBM does not load. If libgomp is missing: apt-get install libgomp1 (Debian, Ubuntu), dnf install libgomp (Fedora)," >&2; \
	  echo "brew install libomp (macOS); then try again." >&2; exit 1; }
	@printf %s "$(CURDIR)" > $(STAMP)
	@echo "environment: ready"

lock: ## pin again after a change of pyproject.toml (ARGS=--upgrade takes newer versions), with uv in an environment of its own
	@$(PYTHON) -m venv --clear .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/uv pip compile --quiet --system-certs --universal --generate-hashes \
	  --no-emit-index-url --extra test $(ARGS) pyproject.toml -o requirements.lock --python-version 3.11
	@rm -rf .venv-lock
	@echo "requirements.lock: $$(grep -c '^[A-Za-z0-9].*==' requirements.lock) packages"

clean: ## remove all that was made: environment, caches, builds, and what the examples keep in .opportune
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov build dist
	rm -rf examples/*/.opportune
	find features training serving pipelines tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
