# Each target makes .venv on first use, and again when pyproject.toml changes.
# PYTHON names the interpreter it is made with, JOBS the number of tests that run at once.

PYTHON ?= python3
JOBS ?= 4
ARGS ?=

BIN := .venv/bin
RUN := .venv/.run
DEV := .venv/.dev

.PHONY: demo test soak check lint layout mypy pyright imports bench format clean

demo: $(RUN)
	$(BIN)/dq demo $(ARGS)

test: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# Keeps what the sweeps did in docs/reliability.json and shows it in docs/reliability.md.
soak: $(DEV)
	DQ_SWEEPS=$(CURDIR)/docs/reliability.json $(BIN)/python -m pytest -m soak -o faulthandler_timeout=1800 -n $(JOBS) --dist worksteal $(ARGS)
	$(BIN)/python -m tests.sweeps

check: lint layout mypy pyright imports

lint: $(DEV)
	$(BIN)/ruff check .

layout: $(DEV)
	$(BIN)/ruff format --check .

mypy: $(DEV)
	$(BIN)/mypy

pyright: $(DEV)
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(DEV)
	$(BIN)/lint-imports

bench: $(DEV)
	$(BIN)/python benchmarks/throughput.py $(ARGS)

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "dq needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) can't make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(RUN): pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(DEV): pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(RUN)
