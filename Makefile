# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help: ## Show this help
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/ready ## Create .venv and install the project with pinned dependencies

.venv/ready: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer, got %d.%d; give make PYTHON=..." % sys.version_info[:2])'
	"$(PYTHON)" -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch .venv/ready

demo: setup ## Restore the bundled portrait: pictures and results.jsonl in demo-out/
	$(RUN) -m pulse_framework demo --output demo-out

lint: setup ## Style, types and the import law
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m importlinter.cli lint

test: lint ## Lint, then every test, with coverage
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --cov --cov-report term:skip-covered --cov-fail-under 90

bench: setup ## Measure the engine against the bare generator, and write benchmarks/README.md
	$(RUN) benchmarks/engine.py

clean: ## Remove .venv and caches
	rm -rf .venv demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
