# Tailrace: `make serve` sets up and starts everything, `make test` sets up and passes the tests.
# Needs Python 3.11 or 3.12, pip and make; no root, no Debian package.

# the first Python that runs, fits and has pip
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && \
	{ command -v $$python; break; }; done)
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
ARGS ?=

.PHONY: serve demo test test-long check bench fmt lock clean

serve: .venv/ready
	@exec $(BIN)/tailrace serve $(ARGS)

demo: .venv/ready
	@exec $(BIN)/tailrace demo $(ARGS)

test: .venv/ready
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long" $(ARGS)

test-long: .venv/ready
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m long $(ARGS)

check: .venv/ready
	@echo "── format and lint"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@echo "── types"
	@$(BIN)/basedpyright
	@echo "── imports"
	@$(BIN)/lint-imports
	@echo "── tests"
	@$(MAKE) --no-print-directory test

bench: .venv/ready
	@$(BIN)/python -m benchmarks $(ARGS)

fmt: .venv/ready
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(UV)
	@$(UV) pip compile pyproject.toml --extra demo --extra postgresql --group dev --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links -q -o requirements.lock

clean:
	rm -rf .venv .tools

$(UV):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with pip is needed; none was found. Set PYTHON=…"; exit 2; }
	@echo "Setting up: the installer …"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
		--upgrade --target .tools uv==$(UV_VERSION)

.venv/ready: requirements.lock pyproject.toml | $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$(PYTHON)" .venv
	@echo "Setting up: the packages of requirements.lock …"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
