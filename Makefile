# One line a target; what it does is in pipelines/. `make help` lists the targets.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup demo seed bronze silver gold stream plan export answers status quality reconcile history restore maintain shell env up down logs airflow check test test-long lint audit clean reset bench

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
# Variables that become an option of the command line, and the targets that take them.
OPTIONS := DOMAIN TABLES FULL RUN ONCE FORMAT CONFIRM
bronze_takes := DOMAIN TABLES FULL
silver_takes := $(bronze_takes)
gold_takes := $(bronze_takes)
plan_takes := $(bronze_takes)
seed_takes := DOMAIN CONFIRM
stream_takes := DOMAIN ONCE
export_takes := DOMAIN TABLES FORMAT
answers_takes := DOMAIN
quality_takes := DOMAIN
reconcile_takes := DOMAIN
restore_takes := RUN
# Variables that make and its tools take.
TAKEN := PYTHON COMPOSE PROFILE SIZES ROUNDS WAYS NIGHTS LAKEHOUSE_% DATABASE_URL POSTGRES_% PG% MAKE% SHELL CI -%
nearest = $(shell $(PYTHON) tools/nearest.py '$1' $2)
$(foreach name,$(filter-out $(OPTIONS) $(TAKEN),$(TYPED)),$(error \
  $(name) is not a variable of this Makefile$(call nearest,$(name),$(OPTIONS)); nothing was done))
$(foreach name,$(filter $(OPTIONS),$(TYPED)),$(if $(filter $(name),$(foreach goal,$(MAKECMDGOALS),$($(goal)_takes))),,$(error \
  make $(MAKECMDGOALS) takes no $(name); nothing was done)))

# $(call options,target): what was typed for a target, as its options.
quoted = '$(subst ','\'',$(value $1))'
with_value = $(if $($1), --$2 $(call quoted,$1))
switch = $(if $(filter-out 0,$($1)), --$2$(if $(filter-out 1,$($1)),=$(call quoted,$1)))
option_DOMAIN = $(call with_value,DOMAIN,domain)
option_TABLES = $(call with_value,TABLES,table)
option_FULL = $(call switch,FULL,full)
option_RUN = $(call with_value,RUN,run)
option_ONCE = $(call switch,ONCE,once)
option_FORMAT = $(call with_value,FORMAT,format)
option_CONFIRM = $(call with_value,CONFIRM,confirm)
options = $(foreach name,$(filter $($1_takes),$(TYPED)),$(option_$(name)))

help: ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## /{printf "make %-22s %s\n", $$1, $$2}' Makefile

setup: .venv/run.stamp ## virtual environment, pinned packages, Delta jars

demo: .venv/run.stamp ## fake data through all layers to the CSV, on an embedded PostgreSQL
	$(CLI) demo

seed: .venv/run.stamp ## create the source tables and fill them with fake data; write fake files: DOMAIN=condominio,varejo
	$(CLI) seed$(call options,seed)

bronze silver gold: .venv/run.stamp ## the layers, in any combination; one domain: DOMAIN=varejo; rebuild in full: FULL=1, or TABLES=movimento FULL=1
	$(if $(filter $@,$(firstword $(LAYERS))),$(CLI) $(LAYERS)$(call options,bronze),@:)

stream: .venv/run.stamp ## ingest files as they arrive: make stream DOMAIN=condominio; end when all are ingested: ONCE=1
	$(CLI) stream$(call options,stream)

plan: .venv/run.stamp ## what the next run would do with each table, and why
	$(CLI) plan$(call options,plan)

export: .venv/run.stamp ## write the CSV of gold's last run again; other tables: DOMAIN=condominio, TABLES=…, FORMAT=parquet
	$(CLI) export$(call options,export)

answers: .venv/run.stamp ## print the tables of gold that answer a question: make answers DOMAIN=varejo
	$(CLI) answers$(call options,answers)

status: .venv/run.stamp ## the last run of each layer, its age and its warnings
	$(CLI) status

quality: .venv/run.stamp ## every rule of the last run, compared with the previous run
	$(CLI) quality$(call options,quality)

reconcile: .venv/run.stamp ## prove again that source, bronze, silver, gold and CSV agree
	$(CLI) reconcile$(call options,reconcile)

history: .venv/run.stamp ## the runs of each layer, and what changed in each
	$(CLI) history

restore: .venv/run.stamp ## bring an earlier run back: make restore RUN=gold/12
	$(CLI) restore$(call options,restore)

maintain: .venv/run.stamp ## remove what no kept run needs, combine small files
	$(CLI) maintain

shell: .venv/run.stamp ## PySpark with bronze.*, silver.*, gold.* as of the last run
	$(CLI) shell

airflow: .venv-airflow/airflow.stamp ## Airflow with the nightly run, on http://127.0.0.1:8080, until Ctrl-C
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

check: .venv/dev.stamp ## format, style, types, imports, names and the tests that need neither Spark nor a server: under a minute
	$(CODE)
	@.venv/bin/python -m pytest tests/unit

test: .venv/dev.stamp ## the test suite
	@.venv/bin/python -m pytest -n 2 --dist worksteal

test-long: .venv/dev.stamp .venv-airflow/airflow.stamp ## many more generated sources and killed runs, a cluster, the image
	@LAKEHOUSE_TEST_CODEGEN=1 .venv/bin/python -m pytest -m "long or not long" $(LONG) --hypothesis-profile=long --hypothesis-show-statistics

lint: .venv/dev.stamp ## format, style, types, direction of imports, pure transforms, names, workflows
	$(CODE)
	@.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@.venv/bin/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@.venv/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(if $(wildcard docker-compose.yml),.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml)
	@.venv/bin/zizmor --offline -qq --no-progress --strict-collection .
	@.venv/bin/python tools/go_tool.py actionlint || [ $$? = 69 ]

audit: .venv/audit.stamp ## secrets in the history, known vulnerabilities in what is pinned; needs the network
	@.venv/bin/python tools/go_tool.py gitleaks git --redact --no-banner
	@.venv/bin/pip-audit --strict --disable-pip --require-hashes $(patsubst %,-r %,$(wildcard requirements/*.txt))

bench: .venv/bench.stamp ## measure several ways to the same lake; SIZES=10000,5000000 ROUNDS=3 WAYS=ours,D NIGHTS=5000000
	@.venv/bin/python -m bench $(foreach name,SIZES ROUNDS WAYS NIGHTS,$(if $(filter undefined,$(origin $(name))),,--$(shell echo $(name) | tr A-Z a-z) '$($(name))'))

env: ## write the containers' settings to .env and passwords to .secrets, once
	@$(PYTHON) tools/env.py

up: ## the layers in containers: make up PROFILE=demo with a PostgreSQL; PROFILE="stream cluster" starts more
	$(COMPOSE) $(addprefix --profile ,$(PROFILE)) up --build --detach

down: ## stop and remove the containers; data stays
	$(COMPOSE) $(addprefix --profile ,$(PROFILES)) down

logs: ## what the containers say
	$(COMPOSE) $(addprefix --profile ,$(PROFILES)) logs --follow

clean: ## remove caches
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

# A folder is no target, although make would say that it is there already.
FOLDERS := $(filter-out bronze silver gold bench export,$(patsubst %/,%,$(wildcard */)))
.PHONY: $(FOLDERS)
$(FOLDERS):
	@echo "make: $@ is a folder, not a target; make help lists the targets" >&2; exit 2

.DEFAULT:
	@echo "make: there is no target $@$(call nearest,$@,$(shell sed -n 's/^[.]PHONY: \([a-z].*\)/\1/p' Makefile)); make help lists them" >&2; exit 2

FORCE:

reset: .venv/run.stamp ## delete lake, CSV and embedded data; asks first
	$(CLI) reset

# Again, too, when a jar or Spark's archive is gone or another Python is asked for on the command line.
STALE := $(if $(word 4,$(wildcard .jars/*.jar)),,FORCE) $(if $(wildcard .jars/*.jsa),,FORCE) $(if $(filter command,$(firstword $(origin PYTHON))),FORCE)

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
