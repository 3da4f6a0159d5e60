# Everything is done with the Python of a virtual environment in .venv, made on first use.
# Needs Python 3.11 or newer and make; no compiler, no linker.

PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(if $(shell \
	$(p) -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null | grep True),$(p))))
BIN := .venv/bin
INSTALLED := .venv/.installed
PYTEST_FLAGS ?= -n auto

.PHONY: demo docs test lint clean

demo: $(INSTALLED)
	@$(BIN)/python benchmarks/demo.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

clean:
	rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .venv

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "polycomp needs Python 3.11 or newer on PATH (or make PYTHON=...)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing polycomp and its tools into .venv (once)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@
