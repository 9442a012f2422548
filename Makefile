# What each target does is in pipelines/. `make help` lists the targets.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup doctor demo seed bronze silver gold stream plan export answers status quality reconcile history restore maintain shell catalog env up down logs airflow check test test-long lint audit clean reset bench

PYTHON ?= python3
COMPOSE ?= docker compose
PROFILES := demo stream cluster airflow
CLI := @.venv/bin/python -m pipelines
# The layers of one make call run in one process, in layer order, at the place of the first.
LAYERS := $(filter bronze silver gold,$(MAKECMDGOALS))
# The files that have long tests, or make up more of theirs.
LONG = $(shell grep --recursive --files-with-matches --include='test_*.py' -e 'mark[.]long' -e 'import hypothesis' -e 'from hypothesis' tests)

# What is typed on make's command line; exported variables of the same names change nothing.
TYPED := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
# It is data: make would expand a $(...) in it, here and in the environment of what it calls.
$(foreach name,$(filter-out -% MAKE%,$(TYPED)),$(eval override $(name) := $$(value $(name)))$(eval export $(name)))
# Variables that become an option of the command line, and the targets that take them.
OPTIONS := DOMAIN TABLES FULL REPLACE RUN ONCE FORMAT CONFIRM
bronze_takes := DOMAIN TABLES FULL REPLACE
silver_takes := $(bronze_takes)
gold_takes := $(bronze_takes)
plan_takes := DOMAIN TABLES FULL
seed_takes := DOMAIN CONFIRM
stream_takes := DOMAIN ONCE
export_takes := DOMAIN TABLES FORMAT
answers_takes := DOMAIN
quality_takes := DOMAIN
reconcile_takes := DOMAIN
restore_takes := RUN
# Variables that make and its tools take; make itself keeps one that begins with a dash, bash asks with the last for
# what Tab completes.
TAKEN := PYTHON COMPOSE PROFILE SIZES ROUNDS WAYS NIGHTS LAKEHOUSE_% DATABASE_URL POSTGRES_% PG% MAKE% SHELL CI -% __BASH_MAKE_COMPLETION__
quoted = '$(subst ','\'',$1)'
nearest = $(shell $(PYTHON) tools/nearest.py $(call quoted,$1) $2)
define LINE_BREAK


endef
$(foreach name,$(filter-out $(OPTIONS) $(TAKEN),$(TYPED)),$(error \
  $(name) is not a variable of this Makefile$(call nearest,$(name),$(OPTIONS)); nothing was done))
$(foreach name,$(filter $(OPTIONS),$(TYPED)),$(if $(filter $(name),$(foreach goal,$(MAKECMDGOALS),$($(goal)_takes))),,$(error \
  make $(MAKECMDGOALS) takes no $(name); nothing was done)))

$(foreach name,$(OPTIONS) PROFILE,$(if $(findstring $(LINE_BREAK),$($(name))),$(error \
  $(name)=$(subst $(LINE_BREAK),\n,$($(name))) has a line break; nothing was done)))

# $(call options,target): what was typed for a target, as its options.
with_value = $(if $($1), --$2 $(call quoted,$($1)))
switch = $(if $(filter-out 0,$($1)), --$2$(if $(filter-out 1,$($1)),=$(call quoted,$($1))))
option_DOMAIN = $(call with_value,DOMAIN,domain)
option_TABLES = $(call with_value,TABLES,table)
option_FULL = $(call switch,FULL,full)
option_REPLACE = $(call with_value,REPLACE,replace)
option_RUN = $(call with_value,RUN,run)
option_ONCE = $(call switch,ONCE,once)
option_FORMAT = $(call with_value,FORMAT,format)
option_CONFIRM = $(call with_value,CONFIRM,confirm)
options = $(foreach name,$(filter $($1_takes),$(TYPED)),$(option_$(name)))

define HELP
start
  doctor              what this machine lacks for a run, with the mend
  demo                fake people through all layers to the CSV
  shell, catalog      PySpark with every table; their names for other programs
  seed                fake data in the source: DOMAIN=, CONFIRM=database
every day
  bronze silver gold  any of the layers: DOMAIN=, FULL=1, TABLES=, REPLACE=file
  stream              files as they arrive: DOMAIN=condominio, ONCE=1
  export              the CSV again, or others: DOMAIN=, TABLES=, FORMAT=parquet
  maintain            removes what no kept run needs, combines small files
look
  status, quality     the last runs and their age; every rule of the last run
  plan                what the next run would do, and why
  history             the runs, and what changed in each
  answers             the tables of gold that answer a question: DOMAIN=varejo
  reconcile           proves again that source, layers and CSV agree
mend
  restore             brings an earlier run back: RUN=gold/12
  reset               deletes lake, CSV and embedded data; asks first
develop
  check, test, lint   in under a minute; all tests; style. test-long: many more
  audit, bench        known vulnerabilities and secrets; speed, other ways
  env, up, down, logs containers: make up PROFILE=demo; airflow tries Airflow
  setup, clean        installs what is missing; removes caches
endef
help:
	@: $(info $(HELP))

setup: .venv/run.stamp

# It answers before anything is set up, too.
doctor:
	@$(PYTHON) tools/bootstrap.py doctor
	@[ ! -x .venv/bin/python ] || .venv/bin/python -m pipelines doctor

demo: .venv/run.stamp
	$(CLI) demo

seed: .venv/run.stamp
	$(CLI) seed$(call options,seed)

bronze silver gold: .venv/run.stamp
	$(if $(filter $@,$(firstword $(LAYERS))),$(CLI) $(LAYERS)$(call options,bronze),@:)

stream: .venv/run.stamp
	$(CLI) stream$(call options,stream)

plan: .venv/run.stamp
	$(CLI) plan$(call options,plan)

export: .venv/run.stamp
	$(CLI) export$(call options,export)

answers: .venv/run.stamp
	$(CLI) answers$(call options,answers)

status: .venv/run.stamp
	$(CLI) status

quality: .venv/run.stamp
	$(CLI) quality$(call options,quality)

reconcile: .venv/run.stamp
	$(CLI) reconcile$(call options,reconcile)

history: .venv/run.stamp
	$(CLI) history

restore: .venv/run.stamp
	$(CLI) restore$(call options,restore)

maintain: .venv/run.stamp
	$(CLI) maintain

shell: .venv/run.stamp
	$(CLI) shell

catalog: .venv/run.stamp
	$(CLI) catalog

airflow: .venv-airflow/airflow.stamp
	@.venv-airflow/bin/python tools/serve_airflow.py

# What `make check` and `make lint` ask of the code.
define CODE
@.venv/bin/ruff format --check .
@.venv/bin/ruff check .
@.venv/bin/mypy
@.venv/bin/lint-imports
@.venv/bin/python tools/check_transforms.py
@.venv/bin/python tools/check_names.py
endef

check: .venv/dev.stamp
	$(CODE)
	@.venv/bin/python -m pytest tests/unit

test: .venv/dev.stamp
	@.venv/bin/python -m pytest -n 2 --dist loadgroup

test-long: .venv/dev.stamp .venv-airflow/airflow.stamp
	@LAKEHOUSE_TEST_ENGINE=spark .venv/bin/python -m pytest -m "long or not long" $(LONG) --hypothesis-profile=long --hypothesis-show-statistics

lint: .venv/dev.stamp
	$(CODE)
	@.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@.venv/bin/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@.venv/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(if $(wildcard docker-compose.yml),.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml)
	@.venv/bin/zizmor --offline -qq --no-progress --strict-collection .
	@.venv/bin/python tools/go_tool.py actionlint || [ $$? = 69 ]

audit: .venv/audit.stamp
	@.venv/bin/python tools/go_tool.py gitleaks git --redact --no-banner
	@.venv/bin/pip-audit --strict --disable-pip --require-hashes $(patsubst %,-r %,$(wildcard requirements/*.txt))

bench: .venv/bench.stamp
	@.venv/bin/python -m bench $(foreach name,SIZES ROUNDS WAYS NIGHTS,$(if $(filter undefined,$(origin $(name))),,--$(shell echo $(name) | tr A-Z a-z) $(call quoted,$($(name)))))

env:
	@$(PYTHON) tools/env.py

up:
	$(COMPOSE) $(foreach name,$(PROFILE),--profile $(call quoted,$(name))) up --build --detach

down:
	$(COMPOSE) $(addprefix --profile ,$(PROFILES)) down

logs:
	$(COMPOSE) $(addprefix --profile ,$(PROFILES)) logs --follow

clean:
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

TARGETS := $(shell sed -n 's/^[.]PHONY: \([a-z].*\)/\1/p' Makefile)
# A folder is no target, although make would say that it is there already. Tab does not offer it.
FOLDERS := $(if $(__BASH_MAKE_COMPLETION__),,$(filter-out $(TARGETS),$(patsubst %/,%,$(wildcard */))))
.PHONY: $(FOLDERS)
$(FOLDERS):
	@echo "make: $@ is a folder, not a target; make help lists the targets" >&2; exit 2

.DEFAULT:
	@printf '%s\n' $(call quoted,make: there is no target $@$(call nearest,$@,$(TARGETS)); make help lists them) >&2; exit 2

.FORCE:

reset: .venv/run.stamp
	$(CLI) reset

# Again, too, when a jar or Spark's archive is gone or another Python is asked for on the command line.
STALE := $(if $(word 4,$(wildcard .jars/*.jar)),,.FORCE) $(if $(wildcard .jars/*.jsa),,.FORCE) $(if $(filter PYTHON,$(TYPED)),.FORCE)

.venv/run.stamp: requirements/build.txt requirements/run.txt requirements/jars.sha256 tools/bootstrap.py $(STALE)
	@$(PYTHON) tools/bootstrap.py run && touch $@

.venv/dev.stamp: .venv/run.stamp requirements/dev.txt
	@$(PYTHON) tools/bootstrap.py dev && touch $@

.venv/audit.stamp: .venv/run.stamp requirements/audit.txt
	@$(PYTHON) tools/bootstrap.py audit && touch $@

.venv/bench.stamp: .venv/run.stamp requirements/bench.txt
	@$(PYTHON) tools/bootstrap.py bench && touch $@

.venv-airflow/airflow.stamp: .venv/run.stamp requirements/airflow.txt
	@$(PYTHON) tools/bootstrap.py airflow && touch $@
