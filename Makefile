# Two commands on a fresh machine with Python 3.11, git and make: `make demo` and `make test`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint clean

help:
	@echo "make demo   nest, build, verify and run a network on real data"
	@echo "make test   lint, type checks and tests with coverage"
	@echo "make lint   ruff, mypy, pyright and the layers"
	@echo "make venv   only the environment: $(VENV)"
	@echo "make clean  remove what the commands above made, the environment too"

venv: $(READY)

# The stamp is written last, so that an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt
	@echo "making $(VENV): about two minutes and 2.5 GB"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[demo,dev]' -c constraints.txt
	@touch $@

demo: $(READY)
	@$(BIN)/nestedge demo

test: lint
	$(BIN)/pytest -q -n auto --dist loadfile --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff check -q
	$(BIN)/ruff format -q --check
	$(BIN)/mypy --no-error-summary
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

clean:
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
	find nestedge converters benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
