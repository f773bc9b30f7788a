# Each verb sets up what it needs; a second call does no work twice.
PYTHON ?= python3
BIN := .venv/bin
RECIPES := $(basename $(notdir $(wildcard recipes/*.yaml)))
PEERS := .venv/peers
# A core each: `pytest -n` gives a worker one thread, and tests that share a built repository one worker.
PARALLEL := -n 2 --dist loadgroup
PURE := tests/core tests/collect tests/preprocess tests/rules
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help repro test quick slow lint bench verify machine demo recipe setup dev

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

bench: repro $(PEERS)/.ready ## our engine beside TRL and Unsloth on this CPU; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/train.py

verify: setup ## the bytes of dvc.lock again, built in another way; ALL=1 trains too
	$(BIN)/python .ci/verify.py $(if $(ALL),--all)

machine: setup ## before a run is committed: note in .ci/machine.json which machine class it comes from
	$(BIN)/python .ci/agree.py --record

demo: setup ## a page in the browser: write, compare, download
	$(BIN)/streamlit run src/storyforge/demo.py

recipe: ## NAME=llama-3.1-8b: that recipe becomes params.yaml
	@$(if $(filter $(NAME),$(RECIPES)),cp recipes/$(NAME).yaml params.yaml,\
	  echo "error: no recipe '$(NAME)'; there are: $(RECIPES)" >&2; exit 1)

setup: $(BIN)/.ready ## install in .venv what a run needs
dev: $(BIN)/.ready-dev

# pip would compile one file after the other.
$(BIN)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or later, not " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.txt
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true
	@touch $@

$(BIN)/.ready-dev: requirements-dev.txt $(BIN)/.ready
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(PEERS)/.ready: benchmarks/requirements-peers.txt | setup
	@rm -rf $(PEERS) && mkdir -p $(PEERS)
	@grep -v '^#' $< | while read -r peer; do \
	  $(BIN)/python -m pip install --quiet --no-deps --target $(PEERS) "$$peer" \
	    || echo "$$peer does not install: the table will say so" >&2; done
	@touch $@
