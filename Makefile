# Every target sets up what it needs; ARGS is passed through: make run ARGS="-p sample=1.0"

ARGS ?=
JOBS ?= 2
BIN := .venv/bin

.PHONY: help setup run test check format bench lab lock clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-11s %s\n", $$1, $$2}' Makefile

setup: ## bring .venv up to date; the other targets do it by themselves
	@PYTHON="$(PYTHON)" scripts/setup-env

run: setup ## run the example pipeline
	@$(BIN)/nbtools run $(ARGS)

test: setup ## every test
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: setup ## format, lint, import contracts, types, unit tests: seconds
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@report=$$($(BIN)/lint-imports) || { echo "$$report"; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest -q tests/unit $(ARGS)

format: setup ## format, and mend what ruff can
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format

bench: setup ## benchmarks, as ratios
	@$(BIN)/python -m benchmarks $(ARGS)

lab: setup ## JupyterLab on the example
	@$(BIN)/jupyter lab $(ARGS)

lock: ## make requirements.lock from pyproject.toml (ARGS=--upgrade for newer versions); needs uv
	@uv pip compile pyproject.toml --output-file requirements.lock --quiet --custom-compile-command "make lock" \
		--universal --python-version 3.11 --extra example --extra dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links $(ARGS)

clean: ## remove what the example and the tools made; keeps .venv
	@rm -rf .nbtools data models deploy .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

distclean: clean ## remove .venv too
	@rm -rf .venv
