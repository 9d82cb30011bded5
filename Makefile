# `make demo` and `make test` do all the set-up by themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
TOGETHER := --numprocesses auto --dist loadfile --max-worker-restart 0

.PHONY: demo test fast long postgres torch clean
demo: .venv/ready
	$(BIN)/seeknal demo

test: .venv/ready
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest $(TOGETHER)

fast: .venv/ready
	SEEKNAL_TEST_PROFILE=fast $(BIN)/python -m pytest $(TOGETHER) -m "not slow"

long: .venv/ready
	SEEKNAL_TEST_PROFILE=long $(BIN)/python -m pytest $(TOGETHER)

postgres: .venv/ready
	SEEKNAL_TEST_REGISTRY=postgres $(BIN)/python -m pytest $(TOGETHER) tests/contract

torch: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pytest tests/with_torch.py

.venv/ready: pyproject.toml
	@echo "Installing into .venv, which takes a minute or two the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[polars,demo,test]"
	touch $@

clean:
	rm -rf .venv .feast seeknal-demo
