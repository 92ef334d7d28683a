# Everything here needs python >= 3.11 with venv, pip and make; the rest is installed into $(VENV).
# Each install takes its versions from constraints.txt: plain `torch` would bring gigabytes of GPU libraries.

PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV ?= .venv
WORKERS ?= 2

bin := $(VENV)/bin
install := $(bin)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports format ci clean

help:
	@echo "make demo      install padcheck alone and check an embedded run of edits"
	@echo "make test      install everything and run the tests"
	@echo "make lint types imports    ruff, mypy --strict, import-linter"
	@echo "make ci        all that, then build, install and run the wheel (.ci/run)"

demo: $(VENV)/.core
	$(bin)/padcheck demo

test: $(VENV)/.dev
	$(bin)/python -m pytest -n $(WORKERS) $(PYTEST)

lint: $(VENV)/.dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .

types: $(VENV)/.dev
	$(bin)/mypy --strict padcheck

imports: $(VENV)/.dev
	$(bin)/lint-imports

format: $(VENV)/.dev
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

ci:
	.ci/run

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# The stamps say what is installed: .core padcheck and its own dependencies, .dev what the tests and checks need as well.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "padcheck needs Python 3.11 or newer: say which with PYTHON=/path/to/python make ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	$(install) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(install) --editable '.[dev]'
	@touch $@ $(VENV)/.core
