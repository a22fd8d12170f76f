# The two commands of the README are `make demo` and `make test`. Each sets everything up first.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
SHORT ?=
EXTRAS := data,report,baselines,ray,lightning,lm,oracle,test,dev,docs,hooks
export OMP_NUM_THREADS ?= 1
# Where this is set, as in many containers, every process compiles torch anew: five seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow calibration trl clock cluster bench docs wheel house lint format setup clean

demo: setup
	rm -rf demo-out
	$(VENV)/bin/finfluence demo $(if $(SHORT),--short) --out demo-out

test: setup
	$(PY) -m pytest -n 2 --dist loadscope

slow: setup
	$(PY) -m pytest -m slow -n 2 --dist loadscope

calibration: setup
	$(PY) -m pytest -m calibration -n 2 --timeout 3600 -s

# TRL brings `datasets` and its pins along: into an environment of its own, which holds all of ours.
trl: setup
	python3 -m venv .venv-trl && .venv-trl/bin/pip install --quiet -c constraints-cpu.txt -e '.[trl,test]'
	.venv-trl/bin/python -m pytest -n 0 tests/integrations/test_trl.py tests/integrations/test_trl_documentation.py

clock: setup
	$(PY) -m pytest -m bench -n 0

cluster: setup
	$(PY) -m pytest -m cluster

bench: setup
	$(PY) -m benchmarks
	for experiment in mislabels truth look-alikes consistency removal addition; do $(VENV)/bin/finfluence bench $$experiment || exit 1; done

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

wheel:
	.ci/wheel.sh

house: setup
	$(PY) -m tools.house

lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

setup: $(READY)

# constraints-cpu.txt pins the CPU build of torch; uv reads no pip configuration, so pip's find-links are passed on.
$(READY): pyproject.toml constraints-cpu.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet uv && \
	  UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(VENV)/bin/uv pip install --quiet --python $(PY) -c constraints-cpu.txt \
	  -e '.[$(EXTRAS)]' || \
	  $(VENV)/bin/pip install --quiet -c constraints-cpu.txt -e '.[$(EXTRAS)]'
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-trl demo-out bench-out site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
