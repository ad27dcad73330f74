# `make demo`, `make test` and `make check` are all a new user needs; each installs what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-long test-chaos test-cluster test-fuzz test-browser soak check docs chromium constraints clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("raydream needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch, Ray and what else is needed: 6 GB, some minutes without a word"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

demo: install
	$(BIN)/python jobs/distill.py --config configs/digits.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not long and not chaos and not cluster and not fuzz and not browser"

test-long: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m long

test-chaos: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m chaos

test-cluster: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m cluster

test-fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m fuzz

# Looks at reports and docs in Debian's Chromium, which root gets by apt; elsewhere, CHROMIUM names one.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome || echo chromium)

test-browser: $(VENV)/.installed-dev docs chromium
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -m browser

chromium:
	command -v $(CHROMIUM) > /dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build

MINUTES ?= 10
SEED ?= 0

soak: $(VENV)/.installed
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) --seed $(SEED) --json benchmarks/results/soak.json

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

constraints: $(VENV)/.installed-dev
	$(BIN)/python .ci/constraints.py > constraints.txt

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache
