# The front door. Every target sets up what it needs by itself and calls the project's own tools;
# anything longer than a line or two lives in scripts/ or testbeds/.

PORT ?= 8000
DATA ?= ./data
# Further arguments for the tool behind a target, as in `make test ARGS="-k launch -x"`.
ARGS ?=

BIN := .venv/bin
PINS := pyproject.toml constraints.txt scripts/venv

.DEFAULT_GOAL := help
.PHONY: help run test testbeds testbeds-down testbed-kubernetes bench lint format docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.lab ## start hub and proxy on http://127.0.0.1:8000 (PORT=8000 DATA=./data)
	@exec $(BIN)/perijove run --bind "127.0.0.1:$(PORT)" --data-dir "$(DATA)"

test: .venv/.dev ## run every test this machine can run (ARGS="-k launch" for some)
	@exec $(BIN)/python -m scripts.test $(ARGS)

testbeds: ## bring up the real services the tests use (root installs what is missing)
	@testbeds/up

testbed-kubernetes: ## bring up the Kubernetes of the tests alone (the first time it is built, 5 minutes)
	@testbeds/up docker kubernetes

testbeds-down: ## stop what `make testbeds` started
	@testbeds/down

bench: .venv/.dev ## measure side by side with JupyterHub and configurable-http-proxy
	@testbeds/up bench
	@testbeds/singleuser/up.sh 6
	@exec $(BIN)/python -m tests.bench $(ARGS)

lint: .venv/.dev ## check style, types, layers, spelling and test docstrings
	@scripts/lint

format: .venv/.dev ## let ruff put the code in shape
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: .venv/.dev ## generate the reference pages and build docs/_build/html
	@$(BIN)/python -m scripts.reference
	@$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove what was built and cached; environments, data and test beds stay
	rm -rf build dist docs/_build bench-results tests/artifacts \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

# The development environment holds all that the running one holds.
.venv/.lab: $(PINS)
	@[ -e .venv/.dev ] && [ -z "$$(find $(PINS) -newer .venv/.dev)" ] || scripts/venv .venv constraints.txt -e '.[lab]'
	@touch $@

.venv/.dev: $(PINS)
	@scripts/venv .venv constraints.txt -e '.[lab,dev]'
	@touch .venv/.lab $@
