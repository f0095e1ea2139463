# make up: run it. make test: test it. make help: the rest.
PYTHON ?= python3
BIN := .venv/bin
RUN := .venv/.run
DEV := .venv/.dev
.DEFAULT_GOAL := help
.PHONY: help install install-dev up unit test check lint fmt lock fuzz chaos plants bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

install: $(RUN)  ## .venv with what running needs
install-dev: $(DEV)  ## .venv with what tests need too

$(RUN): requirements.lock requirements-build.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

up: $(RUN)  ## run the whole system (ARGS="--port 9000 ..." passes options)
	@$(BIN)/scepstream up $(ARGS)

lint: $(DEV)  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(DEV)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

PAGES := tests/unit/whole tests/unit/services/audit/api tests/unit/services/audit/web
unit: $(DEV)  ## the quick unit tests: no server, no page, few examples, under a minute
	TEST_EXAMPLES=5 $(BIN)/pytest -q -n 2 -p no:randomly -m "not slow" $(PAGES:%=--ignore=%) tests/unit

test: lint  ## everything this machine can test; prints what it left out
	TEST_EXAMPLES=$${TEST_EXAMPLES:-50} $(BIN)/pytest -n 2 --dist loadgroup tests/unit tests/contract tests/architecture
	@echo "clients and browser run beside the integration tests; their results follow"
	@$(BIN)/pytest tests/interop tests/browser >.venv/beside.log 2>&1 & beside=$$!; \
	$(BIN)/pytest tests/integration; integration=$$?; \
	wait $$beside; others=$$?; cat .venv/beside.log; test $$integration$$others = 00
	$(BIN)/pytest tests/chaos
	$(BIN)/pytest tests/security

check:  ## make test in full: a missing client, browser or database fails it
	TEST_REQUIRE=all $(MAKE) test

fuzz: $(DEV)  ## 200 000 mutated messages against codec and gateway each (N=... for more)
	TEST_MUTATIONS=$(or $(N),200000) $(BIN)/pytest -n 2 --timeout=7200 -p no:randomly -rP tests/unit/shared/scep/test_fuzz.py tests/unit/whole/test_mutations.py

chaos: $(DEV)  ## ten minutes of kill -9 under load
	TEST_CHAOS_SECONDS=$(or $(SECONDS),600) $(BIN)/pytest --timeout=1800 -s tests/chaos

plants: $(DEV)  ## 20 000 planted messages on the log with each role's key (N=... for others)
	TEST_PLANTS=$(or $(N),20000) $(BIN)/pytest --timeout=7200 tests/security/test_planted_log.py

bench: $(DEV)  ## ratios: codec to the crypto floor, system to the peer server
	$(BIN)/python -m benchmarks.run

LOCK := uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header
lock: $(DEV)  ## resolve the lock files again (needs uv)
	$(LOCK) --extra up pyproject.toml -o requirements.lock
	$(LOCK) --group build -c requirements.lock -o requirements-build.lock
	$(LOCK) --extra up --group build --group dev -c requirements.lock -c requirements-build.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove what make created
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
