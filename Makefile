# Everything a person types. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check image doctor clean
TESTS ?= tests mechanisms_repo/tests

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup:  ## .venv, locked dependencies, Docker engine, sandbox image (skips what is there)
	@scripts/setup

demo: setup  ## the whole product at http://127.0.0.1:8000 (ESCAPEMENT_PORT), Ctrl-C stops it
	@exec .venv/bin/python manage.py demo

test:  ## the whole test suite, on a real engine, git, HTTP and browser (TESTS=path for a part)
	@scripts/setup tests
	@.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

check:  ## lint, types, borders, migrations, deploy settings, security of our own code and lock
	@scripts/setup python
	@scripts/check

image: setup  ## the sandbox image, built if what it is made of has changed; prints its id
	@.venv/bin/python -m sandbox image

doctor:  ## look at every part and name the fix for what fails
	@scripts/setup python
	@.venv/bin/python manage.py doctor

clean:  ## remove caches (var/, with the database and the keys, stays: remove it by hand)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
