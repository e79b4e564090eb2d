# make search: install, then the digits sweep. make test: install, then lint, types, import contract, tests.
# make test FULL=1 runs the slow tests too, and fails on a skip that tests/allowed_skips.txt does not list.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= runs/digits
FULL   ?=

.PHONY: search test install lint clean

search: $(VENV)/installed
	$(BIN)/nas search digits --out $(OUT)

test: $(VENV)/installed lint $(if $(FULL),$(VENV)/torchvision)
	$(BIN)/python tests/run.py $(if $(FULL),--full)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/installed

# torch first: its pin then holds for everything that asks for torch in a range.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

# Only slow tests compare with it, and what it asks for is there already.
$(VENV)/torchvision: $(VENV)/installed
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps torchvision
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
