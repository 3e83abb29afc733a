# make demo: fresh machine to comparison table.   make test: the tests; make test SEED=7: in that random order.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONWARNINGS := ignore

.PHONY: install demo test slow newest lint release docs site clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing into .venv (some minutes; log: .venv/pip.log)"
	@$(BIN)/pip install -c constraints.txt torch==2.13.0 -e ".[fast,viewer,dev]" > .venv/pip.log 2>&1 || (grep -v WARNING .venv/pip.log | tail -20; exit 1)
	touch $@

demo: install
	$(BIN)/dvc repro
	$(BIN)/retemper table

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile $(if $(SEED),--random-order-bucket=module --random-order-seed=$(SEED))

slow: install
	$(BIN)/python -m pytest -m slow

newest: install # the contract of the seam to MACE against its newest release; may fail: see CONTRIBUTING.md
	-$(BIN)/python .ci/newest.py $(if $(VERSION),--version $(VERSION))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline
	$(BIN)/python .ci/pins.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline .github/workflows

release: install # a wheel in dist/, once version, changelog and tag agree: CONTRIBUTING.md
	$(BIN)/python .ci/release.py

docs: install # the table of hostile cases in docs/hostile.md
	$(BIN)/python -m benchmarks.hostile.cases --write

clean: # results and caches; data, foundations and the MLflow store stay
	rm -rf runs .cache

site: install # the documentation, in site/index.html; a warning is an error
	@$(BIN)/pip install -q -c constraints.txt -e ".[docs]" 2>&1 | grep -v WARNING || true
	$(BIN)/properdocs build --quiet -f mkdocs.yml
