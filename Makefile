SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help book pdf check test notebooks unit assignment course student grade \
	address release lint lock serve study processors versions bench bench-attacks \
	gpu clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

book: $(READY) ## build the book into _build/html
	@$(BIN)/python -m book._tools.build

check: $(READY) ## what a change can have touched, in minutes; no pages
	@$(BIN)/python -m book._tools.check --quick

pdf: $(READY) ## print the book into _build/latex/book.pdf (needs LaTeX)
	@$(BIN)/python -m book._tools.pdf

# COLD=1: nothing that was proven before counts, and nbval runs every notebook.
test: $(READY) ## check everything; COLD=1 leaves nothing out as proven before
	@$(if $(COLD),rm -rf _build/cold; export CRLIB_BOOK_CACHE=$(CURDIR)/_build/cold;) \
		$(BIN)/python -m book._tools.check

notebooks: $(READY) ## derive chapters/*.ipynb from book/*.md
	@$(BIN)/python -m book._tools.notebooks

unit: $(READY) ## the skeleton of a chapter or lab: make unit KIND=lab NAME=slug
	@$(BIN)/python -m book._tools.skeleton $(KIND) $(NAME)

# CH=05 is a chapter, CH=lab03 a lab.
UNIT = $(if $(filter ch% lab%,$(CH)),$(CH),ch$(CH))

assignment: $(READY) ## what students get and what grades it: make assignment CH=05
	@$(BIN)/python -m crlib assign $(UNIT) $(if $(EXTRA),--extra $(EXTRA)) $(ARGS)

course: $(READY) ## assignments of all chapters and labs, with an index
	@$(BIN)/python -m crlib assign --all $(ARGS)

student: $(READY) ## notebooks without solutions; ARGS=--pages: the pages, too
	@$(BIN)/python -m crlib student $(ARGS)

grade: $(READY) ## grade a folder or a zip: make grade CH=05 SUBMITTED=in.zip
	@$(BIN)/python -m crlib grade assignments/$(UNIT)/pack.json $(SUBMITTED) \
		--out graded/$(UNIT) $(ARGS)

address: $(READY) ## say where the book is public: make address ADDRESS=owner/name
	@$(BIN)/python -m book._tools.release address $(ADDRESS)

release: $(READY) ## tag the release, or say what stands against it
	@$(BIN)/python -m book._tools.release tag

processors: $(READY) ## run pages as older processors do: make processors PAGES="ch05"
	@$(BIN)/python -m book._tools.processors $(PAGES)

versions: ## test without the pins: make versions WITH=lowest, colab or newest
	@book/_tools/versions.sh $(WITH)

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

bench-attacks: $(BENCH_READY) ## attacks beside other libraries' (ARGS=--quick; ARGS=all)
	@$(BENCH_VENV)/bin/python benchmarks/attacks $(ARGS)

gpu: $(BENCH_READY) ## tests, attacks and ResNet-18 on a GPU, in ten minutes, into gpu/
	@$(BENCH_VENV)/bin/python benchmarks/gpu.py $(ARGS)

# Newer versions of all but torch, whose default build is ten times as large.
lock: ## remake requirements.lock from the bounds in pyproject.toml
	@rm -rf _build/lock && python3 -m venv _build/lock
	@grep '^torch==' requirements.lock > _build/lock/keep.txt
	@_build/lock/bin/python -m pip install -qq -c _build/lock/keep.txt -e .[book,test,scale]
	@_build/lock/bin/python -m pip freeze -qq --exclude-editable \
		| sed -e "s/+.*//" -e "/^nvidia-/d" -e "/^cuda/d" -e "/^triton/d" \
		> requirements.lock

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
