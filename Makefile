# Everything runs in .venv, which is made here on the first call; nothing is written outside this folder.
#
#   make demo                           match two real photographs, write pictures to demo/
#   make test                           run the tests
#
# On Linux the package index's default build of torch brings CUDA, about 5 GB. To take another:
#   make demo TORCH=2.13.0              a version
#   make demo TORCH=/path/to/torch.whl  a wheel
#   make demo TORCH_INDEX=ADDRESS       the index that pytorch.org names for your machine (the CPU build is 200 MB)
# If pip's find-links (PIP_FIND_LINKS, or pip's configuration) already offer a torch for this Python, that one is taken.
# The same variables change the torch of an environment that exists.

PYTHON ?=
TORCH ?=
TORCH_INDEX ?=
VENV ?= .venv
# Words for pytest, e.g. make test TESTS="tests/images -x"
TESTS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --no-input --disable-pip-version-check
# Compiling all of torch to bytecode takes longer than unpacking it, and a run reads a part of it only.
INSTALL := $(PIP) install --quiet --no-compile

# No state outside the folder. With PIP_CACHE_DIR given, pip's downloads are kept there and used again.
export XDG_CACHE_HOME := $(abspath $(VENV))/cache
export MPLCONFIGDIR := $(abspath $(VENV))/cache/matplotlib
ifndef PIP_CACHE_DIR
export PIP_NO_CACHE_DIR := 1
endif
unexport PYTHONPATH
unexport PYTHONHOME

.PHONY: help demo test fuzz lint docs wheel release-check weights clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    match two real photographs (pictures in demo/, error against known truth)"
	@echo "make test    run the tests"
	@echo "make fuzz    what takes too long for every day: a thousand random images, the longest exports"
	@echo "make lint    ruff, mypy and import-linter"
	@echo "make docs    the pages and every docstring as a site, in site/"
	@echo "make wheel   build the package into dist/"
	@echo "make weights PHOTOS=... HELD_BACK=... MINUTES=...   from photographs to a file of weights like the package's"
	@echo "make release-check   the wheel in empty environments: each Python there is, the oldest and the newest of what it needs"
	@echo "make clean   remove all that make has made"
	@echo "TORCH=VERSION|WHEEL or TORCH_INDEX=ADDRESS takes another torch than the default, which brings 5 GB of CUDA on Linux."

demo: $(VENV)/.demo
	$(PY) examples/demo.py --out demo

# A process a core, each with one thread: faster than one process whose threads wait for each other.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(TESTS)

# A thousand random images through every reader, of which the suite draws a few, and the longest exports.
fuzz: $(VENV)/.dev
	$(PY) -m pytest -m fuzz tests/test_faults.py tests/inference/test_export.py tests/test_make_weights.py

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check --quiet .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

# Warnings are errors: a link that leads nowhere, a docstring that does not parse.
docs: $(VENV)/.dev
	$(PY) -m sphinx -q -W --keep-going -d site/.doctrees docs site
	@echo site/README.html

# build/ is removed before and after: setuptools would carry files that have since been deleted into the wheel.
wheel: $(VENV)/.python
	@rm -rf build dist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

# Goes on where it was stopped; hours by device are in docs/weights.md. WORK names another folder.
WORK ?= runs/weights
weights: $(VENV)/.dev
	$(PY) tools/make_weights.py $(PHOTOS) --validation $(HELD_BACK) --out $(WORK) --minutes $(MINUTES)

# PYTHONS="/path/to/python3.12 ..." names others than python3.11 to python3.14.
release-check: wheel
	$(PY) tools/release_check.py dist/*.whl --folder build/release $(if $(PYTHONS),--python $(PYTHONS))

clean:
	rm -rf $(VENV) build dist docs/api site demo src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# Stamps, written when a step is done. They live in the environment, so that they go with it.
$(VENV)/.python:
	@echo "making $(VENV)"
	@sh tools/venv.sh $(VENV) $(PYTHON)
	@touch $@

# An explicit TORCH or TORCH_INDEX unlike the one this environment was made with installs again.
ifneq ($(strip $(TORCH)$(TORCH_INDEX)),)
ifneq ($(strip $(TORCH) $(TORCH_INDEX)),$(strip $(shell cat $(VENV)/.torch 2>/dev/null)))
.PHONY: $(VENV)/.torch
endif
endif

$(VENV)/.torch: | $(VENV)/.python
	@set -e; \
	case "$(TORCH)" in \
	  "") wanted='torch>=2.6' ;; \
	  [0-9]*) wanted="torch==$(TORCH)" ;; \
	  *) wanted="$(TORCH)" ;; \
	esac; \
	if [ -z "$(TORCH)$(TORCH_INDEX)" ] && $(INSTALL) --no-index --no-deps 'torch>=2.6' >/dev/null 2>&1; then \
	  echo "took torch from pip's find-links"; \
	elif [ -n "$(TORCH_INDEX)" ]; then \
	  echo "installing $$wanted from $(TORCH_INDEX)"; \
	  $(PIP) install --no-compile --force-reinstall --no-deps --index-url "$(TORCH_INDEX)" "$$wanted"; \
	  $(INSTALL) --extra-index-url "$(TORCH_INDEX)" torch; \
	else \
	  [ -n "$(TORCH)" ] || echo "installing torch from the package index: on Linux this build brings about 5 GB of CUDA (make help names another way)"; \
	  $(PIP) install --no-compile "$$wanted"; \
	fi
	@echo "$(strip $(TORCH) $(TORCH_INDEX))" > $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "installing glunet and what the demo needs"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

# Bytecode is made ahead here: tests turn warnings into errors, and compiling another's module may warn.
$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing glunet and what the tests need"
	@$(INSTALL) --editable '.[dev]'
	@$(PY) -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@
