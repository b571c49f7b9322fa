# The commands of the README. Each installs what it needs into .venv and changes nothing outside the checkout.
# Python of the environments; by default the newest from 3.11 to 3.13 on this machine (.ci/python)
PYTHON ?=
BIN := .venv/bin
FRAME ?=
FRAMES ?=
BENCH ?=
PRESET ?= small
CUBES ?=
PART ?= 1/1
# small models make poor use of two cores, so two run concurrently; large ones run one at a time
JOBS ?= $(if $(filter small,$(PRESET)),2,1)
# real interferograms next to the checkout, if any, to compare the complexity of the simulated ones
REAL := $(patsubst %,--real %,$(wildcard ../shared/data/licsar))

# Commands start processes that import large libraries; with cached byte code this takes a third of the time.
unexport PYTHONDONTWRITEBYTECODE

# Run a command. Exit code 3 (published, but products are missing; the command has listed them) does not fail the
# target, since make only knows success and failure. The shell forwards SIGTERM and Ctrl-C and waits for the command.
define run
@$(1) & command=$$!; \
  trap "kill -TERM $$command" INT TERM; \
  wait $$command; code=$$?; \
  while kill -0 $$command 2>/dev/null; do wait $$command; code=$$?; done; \
  [ $$code -eq 3 ] || exit $$code
endef

.PHONY: cubes benchmark test test-unit test-readers test-oldest test-lowest test-lowest-baselines docs lint bench bench-loader \
  bench-training serve clean help same-python

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

cubes: .venv/.ready ## build cubes: the embedded sample, FRAME=124D_04854_171313, or FRAMES="..." or FRAMES=all, PART=3/20
	$(call run,$(BIN)/hephaestus build $(or $(patsubst all,--all,$(FRAMES)),$(FRAME),--simulated)$(if $(filter-out 1/1,$(PART)), --part $(PART)))

benchmark: .venv/.ready-baselines ## train and score models: PRESET=small on simulated cubes; PRESET=paper on yours, PART=1/4
	$(call run,$(BIN)/hephaestus benchmark run $(PRESET) --part $(PART) --at-a-time $(JOBS) \
	  $(if $(CUBES),--cubes $(CUBES),$(if $(filter small,$(PRESET)),--simulated)))

test: .venv/.ready-baselines ## run the tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-unit: .venv/.ready ## run the unit tests (half a minute); those of training only if torch is installed
	@$(BIN)/python -m pytest -n logical --dist loadfile tests/unit

# with READERS=all a reader that is missing is a failure; else its tests are skipped, and say so
READERS ?= present
test-readers: .venv-readers/.ready ## open a cube with the readers of other projects (docs/readers.md); fetches from npm
	@TEST_READERS=$(READERS) .venv-readers/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider \
	  tests/integration/readers

TESTS := tests/unit tests/integration/cube tests/integration/export tests/integration/operations tests/integration/readers \
  $(addprefix tests/integration/,pipeline/test_build.py pipeline/test_second_source.py sources/test_arco.py) \
  $(addprefix tests/integration/,cli/test_entry_point.py cli/test_exit_codes.py test_python_search.py)
# the oldest Python has run these with the lowest versions, and the newest versions have run them on the newest Python
test-oldest: TESTS := tests/unit $(addprefix tests/integration/,pipeline/test_build.py export cli/test_entry_point.py)
# the faster tests, or all of them: `make test-lowest TESTS=tests`; tests that need torch are skipped
test-oldest test-lowest: test-%: .venv-%/.ready
	@.venv-$*/bin/python -m pytest -n auto --dist loadfile -p no:cacheprovider $(TESTS)

# training with the lowest versions of torch and what stands on it: 4 GB, some 10 minutes, by hand before a release
test-lowest-baselines: .venv-lowest-baselines/.ready
	@.venv-lowest-baselines/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider tests/unit/baselines \
	  $(addprefix tests/integration/baselines/,test_trainer.py test_architectures.py test_losses.py test_checkpoints.py)

docs: .venv/.ready-docs ## build the documentation into docs/_build, with warnings as errors and without network access
	@rm -rf docs/_build
	@$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --conf-dir docs \
	  . docs/_build/html
	@echo "docs/_build/html/index.html"

serve: .venv/.ready ## start the services of the Prefect flows, until Ctrl-C (docs/prefect.md)
	@exec $(BIN)/python -m hephaestus_flows.serve

bench: .venv/.ready ## benchmark the build at real size against its limit and a plain build (BENCH="--long"; BENCH=--scale: many frames)
	@$(BIN)/python -m hephaestus_build.performance build $(REAL) $(BENCH)

bench-loader: .venv/.ready-baselines ## benchmark the data loader against the published reading pattern and a WebDataset
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group bench
	@$(BIN)/python -m hephaestus_baselines.performance.loader_benchmark $(BENCH)

bench-training: .venv/.ready-baselines ## benchmark training on a GPU or CPU: the loop beside its parts (on a CPU: BENCH="--quick")
	@$(BIN)/python -m hephaestus_baselines.performance.training_benchmark $(BENCH)

lint: .venv/.ready-baselines ## check style, types, import rules and security
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo && $(BIN)/mypy \
	  && $(BIN)/bandit -q -lll -c pyproject.toml -r hephaestus_build baselines flows

clean:          ## remove the environment (never the data)
	rm -rf .venv .venv-oldest .venv-lowest .venv-lowest-baselines .venv-readers

# all extras except baselines, which takes gigabytes
EXTRAS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(",".join(sorted(project["optional-dependencies"].keys() - {"baselines"})))

# Create the environment $(1) with the Python $(2); $(3) are further options of `uv pip install`.
# $(4) is the project, by default with its extras.
define environment
@echo "creating the environment $(1) (once)"
@$(2) -m venv $(1)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv
@UV_PYTHON_DOWNLOADS=never $(1)/bin/uv pip install --quiet --python $(1)/bin/python --group dev \
  --editable "$(or $(4),.[$$($(1)/bin/python -c '$(EXTRAS)')])" $(3)
endef

CHOSEN = $(or $(PYTHON),$(shell .ci/python newest),python3)

# an environment of another Python than the one asked for is not replaced unasked: it may hold gigabytes
version = $$($(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
same-python:
	@[ -z "$(PYTHON)" ] || [ ! -x $(BIN)/python ] || [ "$(call version,$(PYTHON))" = "$(call version,$(BIN)/python)" ] || \
	  { echo ".venv has Python $(call version,$(BIN)/python), PYTHON=$(PYTHON) is another: run \`make clean\`, then the same command"; exit 2; }

.venv/.ready: pyproject.toml | same-python
	@$(CHOSEN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hephaestus-build needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(CHOSEN) -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || \
	  echo "note: tested with Python 3.11 to 3.13 only"
	$(call environment,.venv,$(CHOSEN))
	@touch $@

# environments for .ci/run. Without torch: the oldest Python, and the lowest versions that pyproject.toml allows
.venv-oldest/.ready: pyproject.toml
	$(call environment,.venv-oldest,$$(.ci/python oldest))
	@touch $@

# without Prefect, since bowser wants an older starlette
.venv-readers/.ready: pyproject.toml
	$(call environment,.venv-readers,$(CHOSEN),--group readers,.)
	@touch $@

.venv-lowest/.ready: pyproject.toml
	$(call environment,.venv-lowest,$$(.ci/python oldest),--resolution lowest-direct)
	@touch $@

.venv-lowest-baselines/.ready: pyproject.toml
	$(call environment,.venv-lowest-baselines,$$(.ci/python oldest),--resolution lowest-direct,.[baselines])
	@touch $@

.venv/.ready-docs: .venv/.ready
	@echo "installing the documentation tools into .venv (once)"
	@UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --python $(BIN)/python --group docs
	@touch $@

# torch and its dependents, some gigabytes: for training, its tests and its type checks
.venv/.ready-baselines: .venv/.ready
	@echo "installing torch and other training dependencies into .venv (once, about 3 GB to download)"
	@UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[baselines]'
	@touch $@
