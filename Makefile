# make train  sets everything up on a fresh machine and trains the CNN;   ARGS="model=efficientnet_b0" are passed on
# make test   sets everything up and runs the tests on two cores;         ARGS="-k transforms -n 0" are passed on
# make bench  compares speed and memory with the usual ways;            ARGS="--only data startup" are passed on
# make tensorboard   shows the curves of all runs
# make lint   checks style and types;   make lock  writes requirements.lock and constraints.txt anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup train test evaluate bench tensorboard lint lock clean

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: Python 3.10 or newer is needed; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: could not create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV): some minutes and 7 GB, once; in silence, unless something fails"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# Exit code 66: CIFAR-10 was neither found nor available for download.
train: $(READY)
	@$(BIN)/python train.py $(ARGS); status=$$?; \
	if [ $$status -eq 66 ]; then \
	  echo "make train: continuing with data=shapes: DRAWN IMAGES, NOT CIFAR-10" >&2; \
	  $(BIN)/python train.py $(ARGS) data=shapes; status=$$?; \
	fi; exit $$status

evaluate: $(READY)
	@$(BIN)/python evaluate.py $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

bench: $(READY)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

tensorboard: $(READY)
	@$(BIN)/tensorboard --logdir outputs

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "checking types: up to a minute" && $(BIN)/basedpyright --pythonpath $(BIN)/python

# Versions that still fit stay as they are; ARGS="--upgrade" or "--upgrade-package NAME" takes newer ones.
lock:
	@command -v uv > /dev/null || { echo "error: needs uv: pip install uv" >&2; exit 1; }
	@uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --quiet --output-file requirements.lock $(ARGS)
	@{ echo "# requirements.lock without its hashes, for pip's --constraint: the versions that the tests and figures were made"; \
	  echo "# with, on Python 3.11 and Linux. make lock writes both."; \
	  sed -n 's/^\([a-z0-9][^\\]*[^ \\]\) *\\$$/\1/p' requirements.lock; } > constraints.txt

clean:
	rm -rf $(VENV)
