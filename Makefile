# `make demo` and `make test` set up everything they need in .venv; say PYTHON=... to choose another interpreter.
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python; do "$$p" -c "$(OLD_ENOUGH)" 2>/dev/null && echo "$$p" && break; done)
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage lint bench wheel clean

help: ## Show this help
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /|/' | while IFS='|' read -r name text; do printf '%-8s %s\n' "$$name" "$$text"; done

setup: .venv/ready ## Create .venv and install the project with pinned dependencies

.venv/ready: pyproject.toml constraints.txt
	@"$(PYTHON)" -c "$(OLD_ENOUGH)" 2>/dev/null || { echo "expected Python 3.11 or newer, got '$(PYTHON)'; give make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up .venv with $(PYTHON); the first time this downloads PyTorch and takes some minutes" >&2
	@"$(PYTHON)" -m venv .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch .venv/ready

demo: setup ## Restore the face of the bundled portrait: pictures and results.jsonl in demo-out/
	$(RUN) -m pulse_framework demo --output demo-out

lint: setup ## Style, types and the import law
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c 'from importlinter.cli import lint_imports_command as lint; lint(["--no-logo"])'

test: lint ## Lint, then every test
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2

coverage: setup ## Every test again, with coverage, which takes nearly half as long again
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --cov --cov-report term:skip-covered --cov-fail-under 90

bench: setup ## Measure imports, the start, memory, engine, downscaling, StyleGANs and searches, and write benchmarks/README.md
	$(RUN) benchmarks/imports.py
	$(RUN) benchmarks/startup.py
	$(RUN) benchmarks/memory.py
	$(RUN) benchmarks/freed.py
	$(RUN) benchmarks/processes.py
	$(RUN) benchmarks/engine.py
	$(RUN) benchmarks/tracking.py
	$(RUN) benchmarks/downscaling.py
	$(RUN) benchmarks/stylegan.py
	$(RUN) benchmarks/large.py
	$(RUN) benchmarks/restoration.py
	$(RUN) benchmarks/blind.py
	$(RUN) benchmarks/search.py
	$(RUN) benchmarks/wplus.py

wheel: setup ## Build the wheel and the source distribution into dist/
	$(RUN) -m hatchling build -d dist

clean: ## Remove .venv, caches and what the demo wrote
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build demo-out dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
