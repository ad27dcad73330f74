# `make demo`, `make test` and `make check` are all a new user needs; each installs what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-unit test-ray test-long test-chaos test-cluster test-fuzz test-browser test-python312 faults
.PHONY: soak check docs figures chromium promtool constraints clean

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
	$(BIN)/raydream demo

# The tiers, what belongs where and what each costs: tests/README.md. What each took is said at its end.
PYTEST := $(BIN)/python -m pytest
MEASURED = $(BIN)/python .ci/measured.py $@$(VENV:.venv%=%)
# Two at a time, each file as a whole, so that what its tests share is made once.
BESIDE := -n 2 --dist loadfile
OTHERS := not long and not chaos and not cluster and not fuzz and not browser

# One after another, as the first says soon what is wrong; beside each other they took longer.
test: test-unit test-ray

test-unit: $(VENV)/.installed-dev
	$(MEASURED) $(PYTEST) $(BESIDE) -m "not ray and $(OTHERS)"

test-ray: $(VENV)/.installed-dev
	$(MEASURED) $(PYTEST) -m "ray and $(OTHERS)"

test-long: $(VENV)/.installed-dev
	$(MEASURED) $(PYTEST) $(BESIDE) -m long

test-chaos: $(VENV)/.installed-dev
	$(MEASURED) $(PYTEST) -m chaos

test-cluster: $(VENV)/.installed-dev promtool
	PROMTOOL=$(PROMTOOL) $(MEASURED) $(PYTEST) -m cluster

# Prometheus' tool that tries alert rules, out of Debian's package, which is not installed; without it its test is skipped.
UNPACKED := $(CURDIR)/$(VENV)/prometheus
PROMTOOL ?= $(shell command -v promtool || ls $(UNPACKED)/usr/bin/promtool 2> /dev/null)

promtool: $(VENV)/.installed-dev
	test -n "$(PROMTOOL)" || { mkdir -p $(UNPACKED) && cd $(UNPACKED) && apt-get update && apt-get download prometheus \
		&& dpkg -x prometheus_*.deb .; } || echo "no promtool: its test is skipped"

test-fuzz: $(VENV)/.installed-dev
	$(MEASURED) $(PYTEST) -m fuzz

# The version of Python that cluster.yaml installs, where this machine has one; in an environment of its own.
PYTHON312 ?= $(shell for each in python3.12 $(HOME)/.pyenv/versions/3.12.*/bin/python; do \
	$$each -c 'import venv, ensurepip' 2> /dev/null && echo $$each && break; done)

test-python312:
ifeq ($(PYTHON312),)
	@echo "0 passed, 0 failed: there is no Python 3.12 here; name one by PYTHON312=..."
else
	$(MAKE) test-unit PYTHON=$(PYTHON312) VENV=$(VENV)-312
endif

# Plausible slips, applied one after another: does a test find each? FAULTS="limiter view" takes those so named.
faults: $(VENV)/.installed-dev
	$(BIN)/python tests/faults/check.py $(FAULTS)

# Looks at reports and docs in Debian's Chromium, which root gets by apt; elsewhere, CHROMIUM names one.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome || echo chromium)

test-browser: $(VENV)/.installed-dev docs chromium
	CHROMIUM=$(CHROMIUM) $(MEASURED) $(PYTEST) -m browser

chromium:
	command -v $(CHROMIUM) > /dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build

# Writes the figures of README and docs from benchmarks/results and docs/results, after these have changed.
figures: $(VENV)/.installed
	$(BIN)/python -m docs.figures

MINUTES ?= 120
SEED ?= 0

# Two hours of random faults, then the memory of a run of ten thousand batches.
soak: $(VENV)/.installed
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) --seed $(SEED) --json benchmarks/results/soak.json
	$(BIN)/python benchmarks/steady.py --json benchmarks/results/steady.json

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

constraints: $(VENV)/.installed-dev
	$(BIN)/python .ci/constraints.py > constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-312 docs/_build .pytest_cache .mypy_cache .ruff_cache
