# Two commands do everything: `make demo` and `make test`. Both set up what is missing first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test bench check format clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: ## the virtual environment, the few Debian packages, the datapath
	@PYTHON=$(PYTHON) scripts/setup
	@$(BIN)/python hatch_build.py

demo: setup ## basecamp: three namespaces, an intruder, a killed backend, a killed agent
	@examples/basecamp/run.sh

test: setup ## every test; those that need root or a kernel feature skip with a reason
	@PYTHON=$(PYTHON) scripts/setup tests
	@$(BIN)/python -m compileall -q src # thousands of starts, also where PYTHONDONTWRITEBYTECODE is set
	@$(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder

bench: setup ## side by side with peers in one run; writes bench/results/
	@$(BIN)/python -m bench

check: setup ## lint, types, layers, formats
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run --Werror bpf/*.[ch] bpf/lib/*.h shim/*.c

format: setup ## let the formatters have their way
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/clang-format -i bpf/*.[ch] bpf/lib/*.h shim/*.c

clean: ## what setup and the tests made here
	@rm -rf $(VENV) src/sixfold/host/objects dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
