# Each verb sets up what it needs; a second call does no work twice.
PYTHON ?= python3
BIN := .venv/bin
RECIPES := $(basename $(notdir $(wildcard recipes/*.yaml)))
PEERS := .venv/peers
RECENT := 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or later, not " + sys.version)'
HASHED := $(BIN)/python -m pip install --quiet --no-compile --no-deps --no-build-isolation --use-pep517
# A core each: `pytest -n` gives a worker one thread, and tests/schedule.py a file one worker.
PARALLEL := -n 2
SUITED = PYTHONPATH=src $(BIN)/python -m storyforge.commands.graphics '$(TORCH_INDEX)'
PURE := tests/core tests/collect tests/preprocess tests/rules
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help repro test quick slow lint bench verify machine demo recipe stories setup dev

help: ## print these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Where DVC fails, what is wrong with the clone is said too, a dvc.lock that was cut short among it.
repro: setup ## run whatever stages are out of date
	@$(BIN)/dvc repro || { status=$$?; $(BIN)/storyforge doctor < /dev/null | grep '^wrong' >&2; exit $$status; }

test: dev ## the test suite, offline
	$(BIN)/pytest $(PARALLEL) --durations=25

quick: dev ## the tests that need neither torch nor DVC, in seconds
	$(BIN)/pytest $(PARALLEL) -m "not slow and not gpu and not torch" $(PURE)

slow: dev ## the tests that take minutes, or the real base model
	$(BIN)/pytest $(PARALLEL) --durations=25 -m slow

lint: dev ## style and format
	$(BIN)/ruff check && $(BIN)/ruff format --check

bench: repro $(PEERS)/.ready ## our engine beside TRL and Unsloth on this CPU; writes benchmarks/results
	$(BIN)/python benchmarks/train.py

verify: setup ## the bytes of dvc.lock again, built in another way; ALL=1 trains too
	$(BIN)/python .ci/verify.py $(if $(ALL),--all)

machine: setup ## before a run is committed: note in .ci/machine.json which machine class it comes from
	$(BIN)/python .ci/agree.py --record

demo: setup ## a page in the browser: write, compare, download
	$(BIN)/streamlit run src/storyforge/demo.py

recipe: $(if $(BASE),setup) ## NAME=my-stories: that recipe becomes params.yaml; BASE=qwen3-4b: on that base model
	@$(if $(BASE),$(BIN)/storyforge recipe '$(NAME)' --base '$(BASE)',\
	  $(if $(filter $(NAME),$(RECIPES)),cp recipes/$(NAME).yaml params.yaml,\
	  echo "error: no recipe '$(NAME)'; there are: $(RECIPES)" >&2; exit 1))

stories: setup ## put data/my-stories under DVC, for `dvc exp run --temp`, `--queue` and `dvc push`
	@ls data/my-stories | grep -q . || { echo "error: data/my-stories is empty: put your stories there" >&2; exit 1; }
	@git rm -r --quiet --cached --ignore-unmatch data/my-stories && rm -f data/my-stories/.gitkeep
	$(BIN)/dvc add data/my-stories
	@changed=$$(git diff --cached --name-only -- data/my-stories data/my-stories.dvc data/.gitignore); \
	  test -z "$$changed" || git commit --message "My stories, under DVC" -- $$changed

# TORCH_INDEX=…, for a GPU whose driver is older than the usual build of torch, as `storyforge doctor` says.
setup: $(BIN)/.ready$(if $(HASHES),-hashes) ## install in .venv what a run needs; HASHES=1: only files in requirements.lock
	@$(if $(TORCH_INDEX),$(SUITED))
dev: $(BIN)/.ready-$(if $(HASHES),hashes,dev)

# pip would compile one file after the other.
$(BIN)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c $(RECENT)
	$(PYTHON) -m venv .venv
	@$(SUITED) || test -z '$(TORCH_INDEX)'
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.txt
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true
	@touch $@

# A fresh .venv, since pip asks for no hash of what is installed; the tests' packages come along. The setuptools of
# the lock builds what has no wheel.
$(BIN)/.ready-hashes: requirements.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c $(RECENT)
	$(PYTHON) -m venv --clear .venv
	@sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock > .venv/setuptools.lock
	$(HASHED) --require-hashes --requirement .venv/setuptools.lock
	$(HASHED) --require-hashes --requirement requirements.lock
	@if $(BIN)/python -c 'from importlib.metadata import version; exit("+cpu" in version("torch"))'; then \
	  $(HASHED) --require-hashes --requirement requirements-cuda.lock; fi
	$(HASHED) --editable .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true
	@touch $(BIN)/.ready $(BIN)/.ready-dev $@

$(BIN)/.ready-dev: requirements-dev.txt requirements-documents.txt requirements-judge.txt $(BIN)/.ready
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(PEERS)/.ready: benchmarks/requirements-peers.txt | setup
	@rm -rf $(PEERS) && mkdir -p $(PEERS)
	@grep -v '^#' $< | while read -r peer; do \
	  $(BIN)/python -m pip install --quiet --no-deps --target $(PEERS) "$$peer" \
	    || echo "$$peer does not install: the table will say so" >&2; done
	@touch $@
