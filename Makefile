# make quickstart   word problems, and students that ask: about 8 minutes on 2 cores
# make test         lint, types and the short tests: 20 minutes on 2 cores, less once programs are compiled
# make test-all     the long ones, too: some 25 minutes more
# Each installs what it needs into VENV first. A Python older than 3.11 as python3? Add PYTHON=/path/to/python.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Files stay whole: what a module prepares is made once.
PYTEST_ARGS ?= -n 2 --dist loadfile
CODE := kdtw_jax experiments benchmarks

.PHONY: quickstart test test-all lint types short unit dist docs venv format clean

quickstart: venv
	$(BIN)/kdtw train --task classroom --preset quickstart --out runs/quickstart

test: lint types short

test-all: lint types unit

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy $(CODE)

short: venv
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not long"

unit: venv
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# dist/: a source distribution, and a wheel that is built from it.
dist: venv
	$(BIN)/python -m build --outdir dist

# site/: the documentation, whose warnings are errors.
docs: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(VENV)/.installed

# The stamp is newer than what it was made from, so that an up-to-date environment costs nothing.
$(VENV)/.installed: setup.py requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
