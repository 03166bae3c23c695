# The two commands a newcomer needs: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTED := .venv/.installed-dev

.PHONY: demo test check install clean

install: $(INSTALLED)

# torch first and pinned: a plain newer torch would bring gigabytes of CUDA libraries
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# the tests also need every extra: Flower, Opacus, Qiskit, ...
$(TESTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/hcqsfl data synth all runs/demo-data --size small --seed 2
	HCQSFL_DATA=runs/demo-data $(BIN)/hcqsfl train configs/demo.toml --out runs/demo --overwrite --jobs 2

test: $(TESTED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(TESTED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf .venv build dist
