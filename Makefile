# The commands of CONTRIBUTING.md by name. `make setup` first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test core slow long mutation lint docs manifests man api bench release

setup:
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q -e '.[dev]'
demo:
	$(BIN)/comity demo
test:
	$(BIN)/python -m pytest -n 3
core:
	rm -rf build/core && mkdir -p build/core && git archive HEAD | tar -x -C build/core && rm -r build/core/registry/comity/addons
	cd build/core && PYTHONPATH=$(CURDIR)/build/core/registry:$(CURDIR)/build/core/clients $(CURDIR)/$(BIN)/python -m pytest -n 3
slow:
	$(BIN)/python -m pytest -n 3 -m "slow and not long"
long:
	$(BIN)/python -m pytest -m long
mutation:
	$(BIN)/python tests/mutation/run.py --jobs 2
lint:
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports
docs:
	$(BIN)/python docs/generate.py
manifests:
	helm template comity deploy/helm/comity > deploy/kubernetes/node.yaml
	helm template comity deploy/helm/comity -f deploy/kubernetes/site.values.yaml > deploy/kubernetes/site.yaml
man:
	$(BIN)/python docs/man_pages.py build/man
api:
	$(BIN)/python -m pdoc --docformat markdown --no-show-source -o build/api comity '!comity.v1' comity_client
release:
	$(BIN)/python deploy/release/build_release.py --out build/release
bench:
	$(BIN)/python bench/pull.py && $(BIN)/python bench/publish.py
