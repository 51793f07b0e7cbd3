# make env | demo | test | test_slow | bench | lint | lock | clean. The variables of
# tools/setup_env.sh work here too: make env TORCH=cuda, make test USE_ACTIVE_ENV=1, make env PYTHON=python3.13

ifeq ($(USE_ACTIVE_ENV),1)
ENV_DIR := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
else
ENV_DIR := $(CURDIR)/.venv
endif
export PATH := $(ENV_DIR)/bin:$(PATH)
export PYTHON TORCH USE_ACTIVE_ENV

DEMO := egs/spoken_numbers/asr1

.PHONY: help env demo test test_slow bench lint lock clean

help:
	@echo "make env    the environment in .venv (nothing to do when it is current)"
	@echo "make demo   the same, then the recipe $(DEMO) from corpus to error rates, on the CPU"
	@echo "make test   the same, then the tests that prove it correct, in two processes"
	@echo "make test_slow  the same, then the rest of the tests: whole recipes, long sweeps"
	@echo "make bench  the same, then kernels and encoders beside their peers; PART=scan: of that alone"
	@echo "make bench PART=decode ARGS=...  searches over a trained model; ARGS=--help"
	@echo "make lint   ruff, shellcheck, mypy, and the commands that the documents name"
	@echo "make lock   pin the dependencies of setup.py anew into tools/requirements.lock"
	@echo "make clean  remove what was built; corpora, experiments and .venv stay"

env:
	@tools/setup_env.sh

demo: env
	cd $(DEMO) && ./run.sh
	@echo "(all of it in $(DEMO))"

# Each worker takes a stretch of the tests, so that few fixtures are made twice.
PYTEST := python -m pytest -q -n 2 --dist worksteal

test: env
	$(PYTEST) -m "not slow"

test_slow: env
	$(PYTEST) -m slow

bench: env
	python tools/bench/$(if $(filter decode,$(PART)),decode.py,run.py $(PART)) $(ARGS)

lint: env
	ci/lint.sh

lock: env
	python -m uv pip compile --quiet --upgrade --universal --python-version 3.12 --extra dev \
		--constraints tools/lock.in --no-annotate --custom-compile-command "make lock" --output-file tools/requirements.lock setup.py

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
