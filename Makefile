# Everything from a fresh clone, with Python >= 3.11, git and make: `make reproduce`, `make test`.

PYTHON ?= python3
STAMP := .venv/.setup-stamp
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export HF_HUB_DISABLE_TELEMETRY := 1

# Tests run one thread each, so several at a time; a process takes up to 1.5 GiB.
WORKERS := --numprocesses=auto --maxprocesses=4 --dist=loadfile

.DEFAULT_GOAL := help
.PHONY: help setup reproduce plan test test-all check mutants verify experiments ui clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv and install the tested set of packages
	@:

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: set PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

reproduce: setup ## run what is out of date of the pipeline, and print its result
	dvc repro
	@cat artifacts/evaluate/table.md

# Only what the command line of make names is passed on: a shell may have a variable `model` of its own.
GROUPS := experiment model data labeler engine ppo
CHOICES = $(foreach group,$(GROUPS),$(if $(findstring command,$(origin $(group))),$(group)=$($(group))))

plan: setup ## memory of every stage, before anything is loaded: make plan experiment=… model=… engine=… ARGS="key=value … --gpu 80"
	@python -m rlhf.runtime.plan $(CHOICES) $(ARGS)

test: setup ## run the tests
	python -m pytest -m "not slow" $(WORKERS)

test-all: setup ## run the tests, the slow ones too
	python -m pytest $(WORKERS)

check: setup ## lint, types, and the tests that start no pipeline
	ruff check
	ruff format --check
	mypy
	python -m pytest -m "not slow" --ignore tests/pipeline $(WORKERS)

mutants: setup ## mutate the maths (mutmut), plant faults in maths, models, runtime, labeling and training, and say which of them no test notices
	python -m benchmarks.mutants; of_mutants=$$?; \
	test $$of_mutants -lt 128 || exit $$of_mutants; \
	python benchmarks/faults.py && exit $$of_mutants

verify: setup ## compare what was reproduced here with what is committed
	python -m rlhf.runtime.verify

experiments: setup ## compare experiments: what differs between them, and what came of it
	dvc exp show --only-changed --drop '^(src|stages|conf|data|artifacts)(/|$$)'

ui: setup ## look at the runs in MLflow, on http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

clean: ## remove the outputs of direct runs and sweeps, what models and judges were remembered to say, and states of killed runs; artifacts/ and mlflow.db stay
	rm -rf runs sweeps cache
