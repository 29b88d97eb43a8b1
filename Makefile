# The commands of this repository: `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAB := $(VENV)/.lab
SITE := $(VENV)/.site
READY := $(VENV)/.installed
PIP = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
ARGS ?=
OUT ?= runs/tiny-coder
RECIPES ?= data/tiny-coder
N ?= 10000

# With a model chosen by the reader the numbers differ from the stored ones: cells then only have
# to run (lax). Without, every stored output is compared (strict).
NBVAL := $(if $(QWENKIT_MODEL),--nbval-lax,--nbval)

# Seconds; a larger model takes longer.
CELL := $(if $(QWENKIT_MODEL),900,120)

# Tests run in several processes with one thread each; such a model fits into memory only once.
WORKERS ?= $(if $(QWENKIT_MODEL),0,2)
PYTEST = $(if $(filter-out 0 1,$(WORKERS)),OMP_NUM_THREADS=1) $(BIN)/python -m pytest -n $(WORKERS)

# Said by the Python itself, in syntax that any version of it understands.
NEW_ENOUGH := -c "import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit('qwenkit needs \
	Python 3.11 or newer, and %s is %d.%d. Install a newer one and name it: \
	make lab PYTHON=python3.12' % ((sys.executable,) + v))"

.DEFAULT_GOAL := help
.PHONY: help lab test lint unit notebooks fuzz bench tiny-coder site explorer wheel clean

help:
	@echo "make lab        open JupyterLab on the first notebook (ARGS=\"--port 8900 --no-browser\")"
	@echo "make test       all that checks: lint, unit (with QWENKIT_MODEL also notebooks)"
	@echo "make lint       ruff, mypy and import-linter; with Node.js also ESLint and tsc"
	@echo "make unit       the tests in tests/, in two processes (WORKERS=4 for more); they run every"
	@echo "                notebook in JupyterLab and compare its outputs with the stored ones"
	@echo "make notebooks  only the notebooks, with nbval (with QWENKIT_MODEL: only that every cell runs)"
	@echo "make fuzz       edits of every kind of file, N=10000 of each (ARGS=\"--seed 1 tokenizer\")"
	@echo "make bench      times next to transformers'; needs QWENKIT_MODEL"
	@echo "make tiny-coder train the embedded model again into runs/ (about three hours; again: it resumes)"
	@echo "make site       the course as pages in site/, which open from disk and on any host; the first"
	@echo "                time takes minutes, for it runs the notebooks that have widgets"
	@echo "make clean      remove caches and build products (not .venv)"
	@echo "make explorer   write docs/explorer/, the page that a clone holds, and its moving picture again"
	@echo "make wheel      the package with its model and notebooks, in dist/"
	@echo "The first of them sets up .venv; PYTHON=python3.12 names the Python it is made with."
	@echo "make lab installs what a reader needs; the others add the tools of tests."

lab: $(LAB)
	@echo "Starting JupyterLab"
	@$(BIN)/qwenkit lab $(ARGS)

test: $(READY)
	@for part in lint unit $(if $(QWENKIT_MODEL),notebooks); do \
		start=$$(date +%s); \
		$(MAKE) --no-print-directory $$part || exit 1; \
		echo "== $$part: $$(($$(date +%s) - start)) s"; \
	done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/js/lint.py

unit: $(READY)
	$(PYTEST) --dist worksteal tests

notebooks: $(READY)
	state=$$(mktemp -d) && QWENKIT_PROGRESS=$$state/progress.json QWENKIT_MINE=$$state/my_qwen.py \
	QWENKIT_QUIET=1 $(PYTEST) --dist loadfile $(NBVAL) --nbval-current-env --nbval-cell-timeout=$(CELL) \
		-p no:cacheprovider notebooks/

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --examples $(N) $(ARGS)

bench: $(READY)
	$(BIN)/python tests/bench/run.py $(ARGS)

# Threads that wait do not spin: next to other programs a step takes a fraction of the time. And
# glibc, where it allocates, keeps memory from step to step, in large pages.
FOR_TRAINING = OMP_WAIT_POLICY=passive GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592

# In two parts. One that was stopped goes on from its newest checkpoint, and one that is done is not
# repeated. The result is a mean of both models.
tiny-coder: $(LAB)
	@set -e; \
	part() { \
		if [ -e $(OUT)/$$1/done ]; then return; fi; \
		if ls -d $(OUT)/$$1/checkpoints/step-* >/dev/null 2>&1; then set -- $$1 $$2 --resume; fi; \
		name=$$1; recipe=$$2; shift 2; \
		$(FOR_TRAINING) $(BIN)/qwenkit train $(RECIPES)/$$recipe --out $(OUT)/$$name "$$@" $(ARGS); \
		touch $(OUT)/$$name/done; \
	}; \
	part first recipe.toml; \
	part second recipe-2.toml --start $(OUT)/first/model; \
	$(BIN)/qwenkit average $(OUT)/first/model $(OUT)/second/model --shares 0.3 0.7 \
		--dtype bfloat16 --out $(OUT)/model

# What a page shows comes from several files: all are read again, but widgets are kept in build/.
site: $(SITE)
	rm -rf site
	$(BIN)/python -m sphinx -c docs -d build/site -j auto -E -W --keep-going -q . site
	@echo "Open site/index.html"

explorer: $(READY)
	$(BIN)/python docs/explorer.py

wheel: $(READY)
	$(BIN)/python -m hatchling build

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache build dist site .coverage
	find qwenkit tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c "" || { echo "$(PYTHON) does not run; name a Python of 3.11 or newer:" \
		"make lab PYTHON=python3.12"; exit 1; }
	@$(PYTHON) $(NEW_ENOUGH)
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Three stamps: what a reader needs, and on top what makes the site, and the tools of tests.
$(LAB): pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python $(NEW_ENOUGH)
	@echo "Installing what a reader needs into $(VENV): PyTorch, JupyterLab and what they need." \
		"This takes some minutes the first time"
	@$(PIP) -e .
	@echo "Compiling the kernels: a first sentence of the embedded model"
	@QWENKIT_MODEL= $(BIN)/qwenkit generate "def" --max-new-tokens 3 > /dev/null
	@touch $(LAB)

$(SITE): $(LAB)
	@echo "Installing what makes pages into $(VENV): Sphinx, MyST-NB and Furo"
	@$(PIP) -e '.[site]'
	@touch $(SITE)

$(READY): $(LAB)
	@echo "Installing the tools of tests into $(VENV): transformers, PEFT, pytest and more"
	@$(PIP) -e '.[test]'
	@touch $(READY)
