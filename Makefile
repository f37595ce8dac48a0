# make install   .venv with everything
# make run       set-up and the main job: the demo store, end to end
# make test      set-up and the tests
# make check     lint, types, layers
# make bench     the scorer and the server beside their peers, each in an environment of its own

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# A process of tests for each core; plain `pytest` runs them in one.
PARALLEL := -n logical --maxprocesses 8 --dist worksteal

.PHONY: install run test test-slow check docs bench build clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

run: install
	$(BIN)/manylens run recipes/demo.yaml

test: install
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: install
	$(BIN)/python -m pytest -m slow $(PARALLEL)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

docs: install
	$(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python -m benchmarks.serving --prepare
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.load --prepare
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.load --soak 100000

build: install
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
