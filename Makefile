# make demo   from nothing to a finished ensemble and its report
# make test   all tests but those of some minutes (under 20 minutes)
# make test-long  whole runs in processes of their own: signals, wheel, killed workers (some minutes)
# make test-fast  laws, numerics, conventions: for after every change (under 3 minutes)
# make check  ruff and mypy
# make mutants      faults seeded into the code, each of which a test must find (some minutes)
# make inputs       docs/inputs.md, what happens to what input, from the tests
# make configuration docs/configuration.md, every key of a run's file, from the schema
# make lock         deploy/requirements.lock, all packages of a run with their sha256
# make faults       kills, failing disks, flipped bits in full; docs/reliability.md (about an hour)
# make deployments  real servers, workers and schedules, some of them killed (about ten minutes)
# make docs         the site of docs/, into site/index.html, which opens from the disk
# make notebooks    runs docs/notebooks and keeps what they show (a minute)
# make up           Prefect, Dask and the demo's deployments on this machine, until stopped
# make large        ingest of 20 GB and of 3,650 files: rate, memory (needs 25 GB of disk; half an hour)
# make bench        each stage against what one would take in its place; docs/performance.md
# make one-degree  two years of eight variables at one degree, beside what `plan` says (an hour)
# make gpu          each GPU of this machine against its CPU: equal results, rates, memory (minutes)
# make unit-costs   what work costs on this machine, for `spherescore plan`; docs/performance.md
# make paper-plan   what far larger runs would take, from these costs; docs/performance.md
# make clusters     the demonstration, cut small, on local workers, with TLS and on Slurm (minutes)
# make scale        a thousand simulated workers on one scheduler; docs/performance.md (minutes)
# make services     Debian packages that some tests need (Slurm, munge); asks for root
# make integrators  quality of integrators at several costs, on the finished run of CONFIG
#
# PYTHON=python3.12          another interpreter (3.11 or later)
# JOBS=4                     as many test files at a time (2)
# TORCH_INDEX=https://...    an extra package index, for another build of torch (see README)

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXAMPLES := $(VENV)/.examples
CONFIG ?= deploy/configs/demo.toml

.PHONY: demo test test-long test-fast configuration check mutants faults deployments docs \
  notebooks up inputs lock large bench one-degree gpu unit-costs paper-plan \
  clusters scale services integrators clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/spherescore run deploy/configs/demo.toml

test: $(INSTALLED) $(EXAMPLES)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-long: $(INSTALLED) $(EXAMPLES)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m long $(PYTEST_ARGS)

FAST := tests/pipeline tests/storage/conventions tests/storage/places
test-fast: $(INSTALLED)
	$(BIN)/python -m pytest $(FAST) tests/test_layers.py tests/test_mutants.py \
	  --ignore tests/pipeline/network $(PYTEST_ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy

mutants: $(INSTALLED)
	$(BIN)/python tests/mutants/run.py

inputs: $(INSTALLED)
	$(BIN)/python -m tests.storage.test_inputs_page

configuration: $(INSTALLED)
	$(BIN)/python -m tests.flows.config.test_configuration_page

lock: $(INSTALLED)
	$(BIN)/python -m deploy.lock

faults: $(INSTALLED)
	$(BIN)/python -m tests.faults.run

deployments: $(INSTALLED)
	$(BIN)/python -m pytest tests/deployments -m deployments $(PYTEST_ARGS)

docs: $(INSTALLED) $(EXAMPLES)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

notebooks: $(INSTALLED)
	$(BIN)/python -m deploy.notebooks

STATE ?= runs/machine
up: $(INSTALLED)
	$(BIN)/spherescore up $(STATE) --deploy $(CONFIG)

large: $(INSTALLED)
	$(BIN)/python -m tests.large.ingest --gib 20 --files 3650

bench: $(INSTALLED)
	$(BIN)/python -m deploy.bench.run $(BENCH_ARGS)

one-degree: $(INSTALLED)
	$(BIN)/python -m deploy.bench.one_degree $(BENCH_ARGS)

gpu: $(INSTALLED)
	$(BIN)/python -m deploy.bench.gpu $(GPU_ARGS)

unit-costs: $(INSTALLED)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m deploy.bench.unit_costs

paper-plan: $(INSTALLED)
	$(BIN)/python -m deploy.bench.paper_plan

scale: $(INSTALLED)
	$(BIN)/python -m deploy.bench.scale $(SCALE_ARGS)

clusters: $(INSTALLED)
	$(BIN)/python -m tests.clusters

services:
	apt-get install --yes --no-install-recommends munge slurm-wlm

integrators: $(INSTALLED)
	$(BIN)/python -m deploy.bench.integrators $(CONFIG)

# Set up once, and again only when what is to be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "setting up $(VENV)"; $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[test]'
	@touch $@

$(EXAMPLES): $(INSTALLED) tests/packages.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/packages.txt
	@touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache *.egg-info
