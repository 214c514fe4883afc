# Every target does its whole set-up: Python 3.11 or later and make are all it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs

export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo report test test-slow test-real check format docs clean

demo: $(STAMP)  ## train a small teacher, distil, prune, quantize it; print the table (about five minutes)
	$(BIN)/roots-compress run recipes/quickstart.yaml --run runs/quickstart --fresh

report:  ## open the demo's report in a browser
	$(BIN)/python -m webbrowser -t "file://$(CURDIR)/runs/quickstart/report.html"

# Two processes with one thread each: the models are too tiny for threads to help. Each file stays in one process,
# so that its fixtures are made once, and files go in order, so that the longest are not left for the end.
test: export OMP_NUM_THREADS = 1
test: $(STAMP)  ## the offline test suite
	$(BIN)/python -m pytest -m "not real_model and not slow" -n 2 --dist loadfile --no-loadscope-reorder

# Those that train by two or four processes go one after another: they need the cores.
test-slow: export OMP_NUM_THREADS = 1
test-slow: $(STAMP)  ## the offline tests that take long, and those of each family that has nothing new in its code
	$(BIN)/python -m pytest -m "slow and not real_model and not processes" -n 2 --dist worksteal
	$(BIN)/python -m pytest -m "slow and not real_model and processes"

test-real: export OMP_NUM_THREADS = 1
test-real: $(STAMP)  ## the tests on real models (ROOTS_SMOLLM2, ROOTS_MINILM) and in optimum (ROOTS_RUNTIMES)
	$(BIN)/python -m pytest -m real_model -n 2 --dist loadfile

check: $(STAMP)  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP) $(DOCS_STAMP)  ## write the generated pages and build the site in site/, every link checked
	$(BIN)/python -m docs.generate
	$(BIN)/mkdocs build

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache

# torch first and pinned: on Linux a plain `torch` may bring gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e .
	touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group docs
	touch $(DOCS_STAMP)
