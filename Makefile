# make demo   install, encode and decode a sample photo, write build/demo.png
# make test   install, check style and types, run the tests
# make lint   style and types only
#
# Longer tests, each with its report on standard output:
# make fuzz       coverage-guided fuzzing of decode and info, FUZZ_SECONDS long (default 600)
# make mutations  20,000 changed files with right checksums, the same ones every time
# make matrix     the golden files under the oldest and newest versions of what decoding needs
# make faults     encoders killed at 50 random moments
# make load       500 encodes and decodes from 8 threads
# make gpu        what runs on an NVIDIA GPU, tried and measured: build/gpu.json

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint clean fuzz mutations matrix faults load gpu

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python tools/demo.py build

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile  # a thread each

FUZZ_SECONDS ?= 600

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz --seconds $(FUZZ_SECONDS)

mutations matrix faults load gpu: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.$@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
