# make demo | test | check | docs | campaign | clean: each works from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where pip finds a CPU build of torch, for example: PIP_ARGS="--index-url <your mirror>"
PIP_ARGS ?=
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs-installed

.PHONY: demo test check docs campaign clean

demo: $(STAMP)
	$(BIN)/tagseg demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages as a site: site/index.html.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Breaks small runs in every way, some minutes a part: MINUTES=20 for more, PARTS="kills power" for some.
MINUTES ?= 5
PARTS ?=
campaign: $(STAMP)
	$(BIN)/python tools/campaign.py $(PARTS) --minutes $(MINUTES)

$(STAMP): pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints/cpu.txt --editable ".[dev]"
	touch $@

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints/cpu.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
