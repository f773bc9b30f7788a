# Each verb sets up what it needs; a second call does no work twice.
PYTHON ?= python3
BIN := .venv/bin
RECIPES := $(basename $(notdir $(wildcard recipes/*.yaml)))
PEERS := .venv/peers
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test lint bench verify demo recipe setup

repro: setup ## run whatever stages are out of date
	$(BIN)/dvc repro

test: setup ## the test suite, offline
	$(BIN)/pytest

lint: setup ## style and format
	$(BIN)/ruff check && $(BIN)/ruff format --check

bench: repro $(PEERS)/.ready ## our engine beside TRL and Unsloth on this CPU; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/train.py

verify: setup ## the bytes of dvc.lock again, built in another way; ALL=1 trains too
	$(BIN)/python .ci/verify.py $(if $(ALL),--all)

demo: setup ## a page in the browser: write, compare, download
	$(BIN)/streamlit run src/storyforge/demo.py

recipe: ## make recipe NAME=llama-3.1-8b: that file becomes params.yaml
	@$(if $(filter $(NAME),$(RECIPES)),cp recipes/$(NAME).yaml params.yaml,\
	  echo "error: no recipe '$(NAME)'; there are: $(RECIPES)" >&2; exit 1)

setup: $(BIN)/.ready

$(BIN)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or later, not " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(PEERS)/.ready: benchmarks/requirements-peers.txt | setup
	@rm -rf $(PEERS) && mkdir -p $(PEERS)
	@grep -v '^#' $< | while read -r peer; do \
	  $(BIN)/python -m pip install --quiet --no-deps --target $(PEERS) "$$peer" \
	    || echo "$$peer does not install: the table will say so" >&2; done
	@touch $@
