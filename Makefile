# `make run` plays the whole story on a throw-away homeserver; `make test` runs the tests.
# Both need git, make and Python 3.11 or newer with venv; everything else comes into .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=
ARGS ?=
# Which benchmarks `make bench` runs, one after the other.
BENCH ?= ingest delivery latency
# How many test files are run at a time. Each worker starts its own Synapse and PostgreSQL.
WORKERS ?= 2

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
# A test that hangs is stopped and shown with its threads, long before anybody loses patience.
PYTEST := $(BIN)/python -m pytest --timeout 300 --timeout-method thread
PARALLEL := -n $(WORKERS) --dist loadfile

.PHONY: help setup run test test-clients test-long lint format bench examples lock clean

help:
	@echo 'make run           set up, then play the story on a throw-away Synapse (ARGS=--once: then stop)'
	@echo 'make test          set up, then run the tests (Python only)'
	@echo 'make test-clients  the tests that need Node'
	@echo 'make test-long     the tests that take long'
	@echo 'make lint          ruff and mypy; `make format` formats'
	@echo 'make bench         the benchmarks, or BENCH=delivery that one (ARGS=--help: what it can be told)'
	@echo 'make examples      write the example files, openapi.yaml and what docs show again'
	@echo 'make lock          resolve the dependencies again (needs uv)'
	@echo 'make clean         remove everything that was made here'

setup: $(READY)

$(READY): requirements.lock setup.cfg pyproject.toml
	@python=$$(contrib/dev/find-python $(PYTHON)) \
	    && echo "Setting up $(VENV) with $$($$python --version); this takes a minute or two." \
	    && $$python -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY)
	$(BIN)/openmeet-appservice dev $(ARGS)

test: $(READY)
	$(PYTEST) $(PARALLEL) -m 'not long' --ignore tests/clients $(ARGS)

# The packages that tests/clients names, where it names any; Node itself comes into .venv.
CLIENT_LOCK := $(wildcard tests/clients/package-lock.json)

test-clients: export PATH := $(CURDIR)/$(BIN):$(PATH)
test-clients: $(READY)
	$(if $(CLIENT_LOCK),npm ci --prefix tests/clients --ignore-scripts --no-audit --no-fund)
	$(PYTEST) -m 'not long' tests/clients $(ARGS)

test-long: $(READY)
	$(BIN)/python -m pytest -m long $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	@for name in $(BENCH); do \
	    echo "$(BIN)/python -m benchmarks.$$name $(ARGS)"; \
	    $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; \
	done

examples: $(READY)
	$(BIN)/python contrib/dev/write_examples.py

# requirements.lock is for the work on the project, requirements-run.lock for what only runs it.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

lock:
	@command -v uv >/dev/null || { echo 'uv is needed: python3 -m pip install uv' >&2; exit 1; }
	$(COMPILE) $(ARGS) --extra test --output-file requirements.lock setup.cfg
	$(COMPILE) $(ARGS) --extra build --constraint requirements.lock \
	    --output-file requirements-run.lock setup.cfg

clean:
	rm -rf $(VENV) .dev build dist *.egg-info tests/clients/node_modules
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
