SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help book test notebooks lint serve study bench bench-attacks clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

book: $(READY) ## build the book into _build/html
	@$(BIN)/python -m book._tools.build

test: $(READY) ## check everything: library, exercises, notebooks, pages
	@$(BIN)/python -m book._tools.test_all

notebooks: $(READY) ## derive chapters/*.ipynb from book/*.md
	@$(BIN)/python -m book._tools.notebooks

lint: $(READY) ## style and types only
	@$(BIN)/ruff check .
	@$(BIN)/mypy

serve: $(READY) ## show the built book at http://localhost:8000
	@test -f _build/html/index.html || { echo "Run 'make book' first."; exit 1; }
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

study: $(READY) ## run a study or resume it: make study NAME=networks
	@$(BIN)/crlib run $(NAME) --jobs -1 $(ARGS)

bench: $(READY) ## time the training against plain loops
	@$(BIN)/python benchmarks/training.py

bench-attacks: $(BENCH_READY) ## compare the attacks with other libraries (ARGS=--quick)
	@$(BENCH_VENV)/bin/python benchmarks/attacks $(ARGS)

clean: ## remove what was built; the environment stays
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(READY): requirements.lock pyproject.toml book/_tools/environment.sh
	@book/_tools/environment.sh $(VENV)
	@touch $@

$(BENCH_READY): requirements.lock pyproject.toml benchmarks/requirements.txt \
		book/_tools/environment.sh
	@book/_tools/environment.sh $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install -qq --disable-pip-version-check \
		--no-deps -r benchmarks/requirements.txt
	@touch $@
