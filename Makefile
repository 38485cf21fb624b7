# make demo     sets up and runs the whole method on digits with planted label errors
# make test     sets up and runs all tests
# `make help` lists the rest. PYTHON=python3.12 selects the interpreter for a new .venv.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.set-up
# Processes that share the tests; each has a database of its own and takes up to 2 GB
JOBS ?= 2

# For `make demo`: APP=1 opens the App; MODEL=, PRETRAINED=, DATASET=, NOISE=, RATE= as in its --help
demo_options = $(if $(APP),--app) $(if $(MODEL),--model "$(MODEL)") \
	$(if $(PRETRAINED),--pretrained "$(PRETRAINED)") $(if $(DATASET),--dataset "$(DATASET)") \
	$(if $(NOISE),--noise "$(NOISE)") $(if $(RATE),--rate "$(RATE)")

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format benchmark clean

help: ## Lists the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## Makes .venv, installs everything, makes sure that a database server runs

$(STAMP): pyproject.toml tools/make_venv.py
	@echo "Setting up $(VENV): a few minutes the first time"
	@$(PYTHON) tools/make_venv.py $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@$(PY) -m clipcleaner_plugin.mongod
	@touch $@

demo: $(STAMP) ## Plants label errors in handwritten digits and finds them (APP=1 opens the App)
	@$(if $(APP),$(PY) -m clipcleaner_plugin install)
	@$(PY) -m clipcleaner_plugin demo $(demo_options)

test: $(STAMP) ## Runs all tests (ARGS="-k name" selects, JOBS=0: in one process)
	@$(PY) -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

lint: $(STAMP) ## Checks style and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(STAMP) ## Formats the code
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

benchmark: $(STAMP) ## Prints detection figures beside the paper's rule and cleanlab
	@$(PY) -m benchmarks.detection

clean: ## Removes what these targets made, .venv included
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
