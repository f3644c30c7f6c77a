# Every target sets up what it needs; ARGS is passed through: make run ARGS="-p sample=1.0"

ARGS ?=
JOBS ?= 2
BIN := .venv/bin

.PHONY: help setup run test check format bench peers lab lock clean distclean

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

bench: setup peers ## benchmarks, as ratios: the better part of an hour (ARGS="--only NAME")
	@$(BIN)/python -m benchmarks $(ARGS)

peers: setup ## bring .venv-peers up to date: DVC, Snakemake and others, for the benchmarks only
	@scripts/setup-peers

lab: setup ## JupyterLab on the example
	@$(BIN)/jupyter lab $(ARGS)

lock: ## make requirements.lock and benchmarks/peers.lock (ARGS=--upgrade for newer versions); needs uv
	@uv pip compile pyproject.toml --output-file requirements.lock --quiet --custom-compile-command "make lock" \
		--universal --python-version 3.11 --extra example --extra dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links $(ARGS)
	@uv pip compile benchmarks/peers.in --constraint requirements.lock --output-file benchmarks/peers.lock --quiet \
		--custom-compile-command "make lock" --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links $(ARGS)

clean: ## remove what the example and the tools made; keeps .venv
	@rm -rf .nbtools data models deploy .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

distclean: clean ## remove .venv and .venv-peers too
	@rm -rf .venv .venv-peers
