# `make demo` runs the main job, `make test` the tests; both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
SLOW ?= slow
DEMO ?=
CHAOS ?=

.PHONY: install demo example test test-slow chaos two-nodes slurm lint format lock clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: install
	$(BIN)/resnet-repro grid demo --seeds 3 --storage results/demo $(DEMO)

# The report that is kept in docs/example, of analysis/results: to be made again where a change shows in it.
example: install
	$(BIN)/resnet-repro report --from analysis/results --out docs/example

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	RESNET_REPRO_TEST_DATA=$(DATA) $(BIN)/python -m pytest -m "not slow"

# What takes the longest: kills, a team's servers, the MLflow UI in a browser, benchmarks.
test-slow: install
	RESNET_REPRO_TEST_DATA=$(DATA) $(BIN)/python -m pytest -m "$(SLOW)"

# Kills on a real cluster of two nodes; as root in network namespaces. CHAOS="--help" says what can be asked for.
chaos: install
	$(BIN)/python -m tests.chaos $(CHAOS)

# The guide's way through a cluster, and everything that is known to go wrong on one; as root, with Postgres installed.
two-nodes: install
	$(BIN)/python -m tests.two_nodes

# The guide's way through Slurm, on a cluster made here; as root, with slurm-wlm and munge installed.
slurm: install
	$(BIN)/python -m tests.slurm

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra test --extra server --python-version 3.11 --no-header --no-annotate \
		--upgrade --output-file constraints.txt

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
