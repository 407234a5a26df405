# `make` without a target lists the targets. Each sets up .venv if it is missing or the lock has changed.
.DEFAULT_GOAL := help
.PHONY: help run demo test test-all crash check lint format bench screenshots lock clean venv node

PY := .venv/bin/python
WORKERS ?= 2
# All tests of a file run on the same worker, because they share servers and models.
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile
PROMPT ?= a beautiful sunset over mountains
export PYTHON
# The tests start some hundred servers and engines; each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

run: venv  ## start the server (ARGS="--port 8080")
	@$(PY) api_main.py $(ARGS)

demo: venv  ## paint "a beautiful sunset over mountains" with the embedded model into output/
	@$(PY) -m mflux_api generate "$(PROMPT)" --output output

test: venv  ## prove every promise once, in under five minutes (PYTEST_ARGS="-k lora" for some of the tests)
	@$(PYTEST) -m "not (slow or browser or node)" --hypothesis-profile=fast $(PYTEST_ARGS)

test-all: venv node  ## run all tests, those in a browser and under node included
	@$(PYTEST) $(PYTEST_ARGS)

crash: venv  ## kill the server and its engine 50 times while jobs run, and check that no job is lost
	@$(PY) -m tests.system.crash --kills 50

check: lint test-all  ## run lint, then all tests

lint: venv  ## run ruff, mypy --strict and the check of dependencies between packages
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo
	@$(PY) tools/check_style.py

format: venv  ## format the code with ruff
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

bench: venv  ## time the engine, the server's overhead and the page, with the embedded model
	@$(PY) -m mflux_api bench
	@$(PY) -m mflux_api bench --server
	@$(PY) -m tests.page.bench

screenshots: venv  ## update the README's screenshots of the page in docs/images
	@$(PY) -m tests.page.screenshots

lock:  ## update the lock files with uv (ARGS=--upgrade takes newer versions)
	@python3 tools/lock.py $(ARGS)

clean:  ## remove .venv and all caches; pictures and models are kept
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@tools/venv

node: venv
	@tools/node
