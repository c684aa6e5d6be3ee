# Two commands do everything: `make demo` and `make test`.  PYTHON names the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Some images set it; here it would have each of the thousands of processes that tests start compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo check lint test scenarios scenarios-sim flakes fuzz bench bench-kafka compiled lock clean nightly

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "seatrial needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $(STAMP)

install: $(STAMP) ## make .venv and install seatrial in it

demo: $(STAMP)   ## a 30 s trial of our own 3-node cluster under partition, kill and pause
	$(BIN)/seatrial run --system own --workload log,kv --faults partition,kill,pause --duration 30s --seed 7

lint: $(STAMP)   ## ruff and mypy --strict
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy

check: lint      ## lint, types, tidy and every test that does not sleep (under 60 s)
	$(BIN)/pytest -q -n 2 --dist worksteal -m 'not slow and not external'

test: lint       ## everything, real processes included (under 10 minutes on two cores)
	$(BIN)/pytest -q -n 3 --dist worksteal

scenarios: scenarios-sim ## the scenario suites: in the simulator with 20 seeds, then the real ones on processes
	$(BIN)/pytest -q -n 2 tests/scenarios -m real --cluster-env=local

scenarios-sim: $(STAMP) ## the scenario suites in the simulator, each scenario with 20 seeds, as a table
	$(BIN)/pytest -q -n 3 --dist loadfile --timeout 900 tests/scenarios -m 'not slow and not external' --cluster-env=sim --flake-hunt=20

flakes: scenarios-sim ## that, and 20 runs of every real one on processes (over an hour)
	$(BIN)/pytest -q -n 2 tests/scenarios -m real --cluster-env=local --flake-hunt=20

fuzz: $(STAMP)   ## ten million damaged inputs against the Kafka and the Raft listener, until one harms somebody
	$(BIN)/python tests/fuzz/campaign.py --target kafka --inputs 8000000
	$(BIN)/python tests/fuzz/campaign.py --target raft --inputs 2000000

nightly: $(STAMP) ## the simulator's long search, which must also reach every rare event that the code names
	$(BIN)/seatrial sim --level core --seeds 20000 --coverage
	$(BIN)/seatrial sim --seeds 2000 --coverage

bench: $(STAMP)  ## all benchmarks, one after the other
	for b in benchmarks/[a-z]*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

bench-kafka: $(STAMP) ## our server and Apache Kafka side by side (needs java, and mvn the first time; over an hour)
	$(BIN)/python benchmarks/kafka/run.py

compiled: $(STAMP) ## build the hot path with mypyc into .venv-compiled, and run every test there
	SEATRIAL_COMPILE=1 $(BIN)/python -m pip wheel --quiet --no-deps -w .venv-compiled/dist .
	test -x .venv-compiled/bin/python || $(BIN)/python -m venv .venv-compiled
	.venv-compiled/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	.venv-compiled/bin/python -m pip uninstall --quiet --yes seatrial
	.venv-compiled/bin/python -m pip install --quiet --force-reinstall --no-deps .venv-compiled/dist/seatrial-*.whl
	.venv-compiled/bin/python -c 'import seatrial.raft.node as node; assert node.__file__.endswith(".so"), node.__file__'
	.venv-compiled/bin/pytest -q -n 2

lock: $(STAMP)   ## resolve requirements.lock again from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-package seatrial --all-extras pyproject.toml -o requirements.lock

clean:           ## remove .venv and caches
	rm -rf $(VENV) .venv-compiled .mypy_cache .ruff_cache .pytest_cache .hypothesis
