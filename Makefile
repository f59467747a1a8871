# `make run`: environment and default workflow. `make test`: environment and tests.
# Everything else is plain Snakemake.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
STAMP := .venv/.installed
# The libraries that interpflow is timed against, beside it in an environment of their own.
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed

.PHONY: run test test-all test-gpu lint types check schema clean peers bench

run: $(STAMP)
	$(BIN)/snakemake --cores $(CORES)
	@echo "report: results/report/index.html"

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(STAMP)
	$(BIN)/python -m pytest

test-gpu: $(STAMP)
	$(BIN)/python -m pytest tests/gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

types: $(STAMP)
	$(BIN)/pyright

check: lint types test

schema: $(STAMP)
	PYTHONPATH=workflow_scripts $(BIN)/python -m interpflow.config.schema

peers: $(PEERS_STAMP)

bench: $(PEERS_STAMP)
	$(PEERS)/bin/python -m tests.benchmarks.run --all
	$(PEERS)/bin/python -m tests.benchmarks.page

clean:
	rm -rf results logs .snakemake

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "interpflow needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.lock
	@touch $(STAMP)

$(PEERS_STAMP): requirements.lock pyproject.toml
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check -q -c requirements.lock -e '.[peers]'
	@touch $(PEERS_STAMP)
