# The commands of this repository: `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
ARGS ?=
OUT ?= runs/tiny-coder
N ?= 10000

# With a model chosen by the reader the numbers differ from the stored ones: cells then only have
# to run (lax). Without, every stored output is compared (strict).
NBVAL := $(if $(QWENKIT_MODEL),--nbval-lax,--nbval)

# Tests run in several processes with one thread each; such a model fits into memory only once.
WORKERS ?= $(if $(QWENKIT_MODEL),0,2)
PYTEST = $(if $(filter-out 0 1,$(WORKERS)),OMP_NUM_THREADS=1) $(BIN)/python -m pytest -n $(WORKERS)

# Said by the Python itself, in syntax that any version of it understands.
NEW_ENOUGH := -c "import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit('qwenkit needs \
	Python 3.11 or newer, and %s is %d.%d. Install a newer one and name it: \
	make lab PYTHON=python3.12' % ((sys.executable,) + v))"

.DEFAULT_GOAL := help
.PHONY: help lab test lint unit notebooks fuzz bench tiny-coder clean

help:
	@echo "make lab        open JupyterLab on the first notebook (ARGS=\"--port 8900 --no-browser\")"
	@echo "make test       all that checks: lint, unit (with QWENKIT_MODEL also notebooks)"
	@echo "make lint       ruff, mypy and import-linter"
	@echo "make unit       the tests in tests/, in two processes (WORKERS=4 for more); they run every"
	@echo "                notebook in JupyterLab and compare its outputs with the stored ones"
	@echo "make notebooks  only the notebooks, with nbval (with QWENKIT_MODEL: only that every cell runs)"
	@echo "make fuzz       edits of every kind of file, N=10000 of each (ARGS=\"--seed 1 tokenizer\")"
	@echo "make bench      times next to transformers'; needs QWENKIT_MODEL"
	@echo "make tiny-coder train the embedded model again into runs/ (an hour and a half; ARGS=--resume resumes)"
	@echo "make clean      remove caches and build products (not .venv)"
	@echo "The first of them sets up .venv; PYTHON=python3.12 names the Python it is made with."

lab: $(READY)
	$(BIN)/qwenkit lab $(ARGS)

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
	$(BIN)/lint-imports --no-cache

unit: $(READY)
	$(PYTEST) --dist worksteal tests

notebooks: $(READY)
	$(PYTEST) --dist loadfile $(NBVAL) --nbval-current-env --nbval-cell-timeout=120 \
		-p no:cacheprovider notebooks/

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --examples $(N) $(ARGS)

bench: $(READY)
	$(BIN)/python tests/bench/run.py $(ARGS)

tiny-coder: $(READY)
	$(BIN)/qwenkit train data/tiny-coder/recipe.toml --out $(OUT) $(ARGS)

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache build dist .coverage
	find qwenkit tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c "" || { echo "$(PYTHON) does not run; name a Python of 3.11 or newer:" \
		"make lab PYTHON=python3.12"; exit 1; }
	@$(PYTHON) $(NEW_ENOUGH)
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python $(NEW_ENOUGH)
	@echo "Installing qwenkit and what it needs into $(VENV): this takes some minutes the first" \
		"time, and nothing is shown until it is done"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[test]'
	@echo "Compiling the kernels: a first sentence of the embedded model"
	@QWENKIT_MODEL= $(BIN)/qwenkit generate "def" --max-new-tokens 3 > /dev/null
	@touch $(READY)
