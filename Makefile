# `make` without a target lists them. With only Python 3.11 to 3.14 and make on the machine, every target installs what it needs.

EXP     ?= baseline
EXPS    ?= baseline regularized tuned_lr hires_128
RUNS    ?= runs
REPORTS ?= reports
DOCS    ?= docs
PYTHON3 ?= python3

# An activated conda environment made from environment.yml is used as it is; otherwise .venv is made from the locks.
# Making .venv needs a Python. This is .venv's own if that runs, so later calls need no other.
ifeq ($(CONDA_DEFAULT_ENV),dcgan-ablation-lab)
PYTHON := python
INSTALL := $(if $(TORCH),echo "error: TORCH= is for .venv: a conda environment has the PyTorch it was made with" >&2; exit 2,:)
INSTALL_STUDY := python -c "import ray, rich" 2>/dev/null || python -m pip install --quiet -r requirements-study.lock
else
PYTHON := .venv/bin/python
INSTALL := python=.venv/bin/python; $$python -c "" 2>/dev/null || python="$(PYTHON3)"; $$python -c 'import sys; \
	sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "error: Python 3.11 to 3.14 is needed, $(PYTHON3) is %d.%d (make PYTHON3=python3.12 ...)" \
	% sys.version_info[:2])' && TORCH="$(TORCH)" $$python dcgan/tools/install.py requirements.lock
INSTALL_STUDY = $(INSTALL) requirements-study.lock
endif

# Variables become options; an empty one leaves the program's default. 0 turns FRESH, SCORE, PUBLISHED and TERMINAL off.
on = $(filter-out 0,$($(1)))
WHICH = "$(EXP)" --runs "$(RUNS)" $(if $(PROFILE),--profile "$(PROFILE)") $(if $(DATA),--data "$(DATA)") \
        $(if $(SEED),--seed "$(SEED)") $(if $(DEVICE),--device "$(DEVICE)") $(foreach pair,$(SET),--set "$(pair)")

# The options of a study.
STUDIED = $(EXPS) --runs "$(RUNS)" $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(PROFILE),--profile "$(PROFILE)") \
          $(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device "$(DEVICE)") \
          $(if $(CPUS_PER_RUN),--cpus-per-run "$(CPUS_PER_RUN)") $(if $(GPUS_PER_RUN),--gpus-per-run "$(GPUS_PER_RUN)") \
          $(foreach pair,$(SET),--set "$(pair)")

# The options of the comparison; INCEPTION_WEIGHTS is read from the environment.
export INCEPTION_WEIGHTS
SCORED = $(if $(EXTRACTOR),--extractor "$(EXTRACTOR)") $(if $(SAMPLES),--samples "$(SAMPLES)")
COMPARED = --runs "$(RUNS)" $(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device "$(DEVICE)") \
           $(SCORED) --out "$(REPORTS)" $(if $(WANDB),--wandb "$(WANDB)") \
           $(if $(COST_PER_HOUR),--cost-per-hour "$(COST_PER_HOUR)")

.DEFAULT_GOAL := help
TARGETS := help setup run study sample compare study-page publish ladder prune rate dashboard bench test test-long test-faults test-cluster lint lock
.PHONY: $(TARGETS) install-study

# Checked before anything is made: `make run tuned_lr` would train the default and then find no target `tuned_lr`.
STRAY := $(filter-out $(TARGETS) install-study,$(MAKECMDGOALS))
ifneq ($(STRAY),)
$(error there is no target "$(firstword $(STRAY))": `make` lists them; an experiment is EXP=$(firstword $(STRAY)))
endif

# `make study EXP=tuned_lr` would train all of EXPS, `make sample EXPS=tuned_lr` draw from baseline, and `make prune EXP=tuned_lr`
# prune all runs.
UNUSED_study := EXP SEED FRESH GPUS
UNUSED_run := EXPS SEEDS
UNUSED_sample := EXPS SEEDS FRESH
UNUSED_rate := EXPS SEEDS FRESH
UNUSED_prune := EXP EXPS SEED SEEDS PROFILE DATA SET
UNUSED_compare := EXP EXPS SEED SEEDS PROFILE SET
UNUSED_dashboard := $(UNUSED_compare) DATA
USED_study := EXPS= and SEEDS=
USED_run := EXP= and SEED=
USED_sample := $(USED_run)
USED_rate := $(USED_run)
USED := $(or $(USED_$(firstword $(MAKECMDGOALS))),all runs in RUNS=)
MISTAKEN := $(if $(word 2,$(MAKECMDGOALS)),,$(foreach name,$(UNUSED_$(MAKECMDGOALS)),$(if $(filter command,$(origin $(name))),$(name))))
ifneq ($(strip $(MISTAKEN)),)
$(error `make $(MAKECMDGOALS)` takes $(USED), not $(firstword $(MISTAKEN))=)
endif

help: ## list the targets
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-15s %s\n", $$1, $$2 }'
	@echo
	@echo "  EXP=name        an experiment under experiments/ ($(EXP))           PROFILE=name  how much to train: full, laptop or smoke"
	@echo "  DATA=path       folder, .zip, .tar, .parquet, .npz, .npy, or celeba    SET=\"key=value ...\"  settings to change (no spaces in a value)"
	@echo "  SEED=n          the seed of a run                                     FRESH=1       delete the run and train it again"
	@echo "  EXPS=\"name ...\"  the experiments of a study                           SEEDS=n       its seeds: 5 means 0 to 4; or 10-12, or 1,3"
	@echo "  CPUS_PER_RUN=n  cores for each of its runs                            GPUS_PER_RUN=n  GPUs for each; 0.5: two share one"
	@echo "  DEVICE=name     cuda, mps or cpu (default: the best)                  GPUS=n        train one run on n GPUs (with DEVICE=cpu: n processes)"
	@echo "  RUNS=dir        where runs are kept ($(RUNS))                            REPORTS=dir   where comparisons go ($(REPORTS))"
	@echo "  DOCS=dir        where a study goes ($(DOCS))                             WANDB=entity/project  compare the runs of a W&B project"
	@echo "  EXTRACTOR=name  inception or effnet_lite0                             INCEPTION_WEIGHTS=file  the weights of inception"
	@echo "  SAMPLES=n       generated images to score                             SCORE=1       score the run after its training"
	@echo "  TERMINAL=1      the dashboard in the terminal (0: for ssh -L)         WHAT=\"name ...\"  the benchmarks, in ROUNDS=n rounds"
	@echo "  COST_PER_HOUR=price  of the GPU                                       PUBLISHED=1   draw from the published generator of EXP"
	@echo "  TORCH=build     which PyTorch to install: auto, cpu, cu126, cu130 or pypi (default: the installed one, else auto)"

setup: ## install what the lab needs (the other targets do this too): make setup TORCH=cpu
	@$(INSTALL)

install-study: ## install Ray too, which runs studies (`make study` does this itself)
	@$(INSTALL_STUDY)

run: setup ## train EXP, or resume it: make run EXP=tuned_lr
	@$(PYTHON) -m $(if $(call on,SCORE),analysis,dcgan) run $(WHICH) $(if $(GPUS),--gpus "$(GPUS)") $(if $(call on,FRESH),--fresh)

# Exit code 0: all runs are done; 1: some failed; otherwise there is nothing new to compare.
study: install-study ## train EXPS x SEEDS side by side, then compare: make study EXPS="baseline tuned_lr" SEEDS=5
	@$(PYTHON) -m dcgan study $(STUDIED); code=$$?; \
	if [ $$code -le 1 ]; then $(PYTHON) -m analysis compare $(COMPARED) || code=1; fi; exit $$code

sample: setup ## draw a grid, a walk, a film of the training and single images from a finished run: make sample EXP=tuned_lr
	@$(PYTHON) -m dcgan sample $(WHICH) $(if $(call on,PUBLISHED),--published)

compare: setup ## compare all runs and open the page; scores are added as they come
	@$(PYTHON) -m analysis compare $(COMPARED)

study-page: setup ## compare, then write docs/study.md and the results in the READMEs
	@$(PYTHON) -m analysis study-page $(COMPARED) --docs "$(DOCS)"

publish: setup ## copy what the study needs from each finished, scored run into DOCS/study/evidence
	@$(PYTHON) -m analysis publish --runs "$(RUNS)" --docs "$(DOCS)" $(SCORED)

ladder: setup ## damage real images step by step and score them: what does a KID of 0.1 look like?
	@$(PYTHON) -m analysis ladder --docs "$(DOCS)" $(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device "$(DEVICE)") $(SCORED)

prune: setup ## delete the checkpoints of runs that have ended; the comparison doesn't need them
	@$(PYTHON) -m dcgan prune --runs "$(RUNS)"

rate: setup ## rate generated and real faces yourself: make rate EXP=tuned_lr
	@$(PYTHON) -m analysis rate $(WHICH)

dashboard: setup ## watch the runs: in W&B when online, otherwise on a live page in the browser (TERMINAL=1: in the terminal)
	@$(PYTHON) -m analysis dashboard --runs "$(RUNS)" --out "$(REPORTS)" \
		$(if $(TERMINAL),$(if $(call on,TERMINAL),--terminal,--no-terminal))

bench: setup ## measure speed and memory, compared with what you would run instead: make bench WHAT=train
	@$(PYTHON) -m benchmarks $(WHAT) $(if $(ROUNDS),--rounds "$(ROUNDS)")

# Slow tests start first; a process that runs out of tests takes some of another's.
PYTEST = $(PYTHON) -m pytest
SPREAD = -n auto --maxprocesses 4 --dist worksteal

test: install-study ## run the tests (about five minutes)
	@$(PYTEST) $(SPREAD)

test-long: install-study ## run the thorough tests that `make test` leaves out
	@$(PYTEST) $(SPREAD) -m "thorough and not long"

test-faults: setup ## kill runs, fill the disk, give them broken input: the long tests (about an hour)
	@$(PYTEST) $(SPREAD) tests/faults -m "" --hypothesis-profile=faults

test-cluster: install-study ## kill machines, workers and studies midway: the long tests of `make study` (some minutes)
	@$(PYTEST) tests/cluster -m ""

lint: setup ## check style and types
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy

# torch's wheels for CUDA require nvidia-*, cuda-* and triton themselves, nearly all at an exact version. If the locks
# pinned these too, machines without a GPU would install them.
COMPILE = $(PYTHON) -m uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate

lock: setup ## pin the newest versions that pyproject.toml allows
	@$(COMPILE) --extra dev pyproject.toml -o requirements.lock
	@$(COMPILE) --extra study --extra data --constraint requirements.lock pyproject.toml -o requirements-study.lock
	@sed -i.all -E '/^(cuda-|nvidia-|triton=)/d' requirements.lock requirements-study.lock
	@rm requirements.lock.all requirements-study.lock.all
