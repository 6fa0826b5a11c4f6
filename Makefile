# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0

PYTHON ?= python3

# A sourced ROS 2 environment is used as it is; anywhere else rclpy comes as wheels.
ROS_SOURCED := $(shell [ -n "$$AMENT_PREFIX_PATH$$ROS_VERSION" ] \
    && $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes || echo no)
ifeq ($(ROS_SOURCED),yes)
VENV ?= .venv-sourced
else
ROS_DISTRO ?= jazzy
VENV ?= $(if $(filter jazzy,$(ROS_DISTRO)),.venv,.venv-$(ROS_DISTRO))
endif
export PYTHON ROS_DISTRO ROS_SOURCED LOCKED

BIN := $(VENV)/bin
LIGHT := $(VENV)/.light
STAMP := $(VENV)/.setup
# tools that need nothing of the project
AUDIT := .venv-audit
REQUIREMENTS := $(wildcard requirements/*.txt requirements/install.sh requirements/lock/*) setup.py setup.cfg pyproject.toml
SOURCES := nightseg_ros test launch bench setup.py

.DEFAULT_GOAL := help
.PHONY: help setup full test demo weights bench soak cycles lint format fuzz crash mutate coverage audit bandit \
    lock colcon clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(LIGHT)  ## virtual environment with ROS 2 wheels (ROS_DISTRO=jazzy|kilted), VENV=..., LOCKED=1

full: $(STAMP)  ## the same with torch and what tests, training and lint need

$(LIGHT): $(REQUIREMENTS)
	requirements/install.sh $(VENV)
	@touch $@

$(STAMP): $(REQUIREMENTS)
	requirements/install.sh $(VENV) full
	@touch $(LIGHT) $@

test: $(STAMP)  ## the tests, those through ROS 2 processes beside the others; ARGS='-k router -x' goes to pytest
	@mkdir -p out; \
	TEST_HALF=ros $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS) >out/test_ros.log 2>&1 & \
	TEST_HALF=other $(BIN)/python -m pytest $(ARGS); other=$$?; \
	wait $$!; ros=$$?; cat out/test_ros.log; \
	case $$other$$ros in 00 | 05 | 50) ;; *) exit 1 ;; esac  # 5: ARGS chose none of this half

demo: $(LIGHT)  ## a drive from day into night through real ROS 2 processes; OUT=dir, CLOUDS=1, VIEW=1
	$(if $(INPUT),$(error INPUT= is gone: call $(BIN)/nightseg run '$(INPUT)'))
	$(BIN)/nightseg demo --out $(or $(OUT),out/demo) $(if $(CLOUDS),--clouds) $(if $(VIEW),--view)

weights: $(STAMP)  ## every weight made of real frames, from nothing: DATA=folder, OUT=dir; STEPS=2 to try it out
	PYTHON=$(BIN)/python config/training/make_weights.sh $(DATA) $(or $(OUT),out/weights)

bench: $(LIGHT)  ## how fast the pipeline is on this machine; SHORT=1, OUT=dir, ARGS
	$(BIN)/nightseg bench --out $(or $(OUT),out/bench) $(if $(SHORT),--short) $(ARGS)

soak: $(LIGHT)  ## a long drive through real processes: does anything grow? MINUTES=60, OUT=dir
	$(BIN)/python bench/soak.py --minutes $(or $(MINUTES),60) --out $(or $(OUT),out/soak) $(ARGS)

cycles: $(LIGHT)  ## lifecycle cycles: does anything grow? N=2000, FLOOD=frames a second
	$(BIN)/python bench/lifecycle_cycles.py --cycles $(or $(N),2000) --flood $(or $(FLOOD),0) $(ARGS)

lint: $(STAMP)  ## ruff, mypy and the linters of ROS
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/ament_flake8 $(SOURCES)
	$(BIN)/ament_pep257 $(SOURCES)

format: $(STAMP)  ## let ruff sort imports and lay out the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

fuzz: $(STAMP)  ## hostile bytes into every reader: RUNS=1000000 each, TARGETS='mcap config'
	$(BIN)/python -m pip install --quiet -r requirements/fuzz.txt
	for target in $(or $(TARGETS),raw packed mcap sqlite3 ros1 folder config weights); do \
	    PYTHONPATH=. $(BIN)/python test/fuzz.py $$target -runs=$(or $(RUNS),1000000) || exit 1; \
	done

crash: $(STAMP)  ## every tool killed at KILLS=20 random moments ends in the same bytes; SEED=0
	KILLS=$(or $(KILLS),20) SEED=$(or $(SEED),0) $(BIN)/python -m pytest --timeout 0 test/test_crash.py $(ARGS)

mutate: $(STAMP)  ## does a test notice each change? ARGS='nightseg_ros.perception.router*'
	$(BIN)/python -m pip install --quiet -r requirements/mutate.txt
	$(BIN)/mutmut run $(ARGS)
	$(BIN)/mutmut results

coverage: $(STAMP)  ## branch coverage of the tests, with the processes that they start
	$(BIN)/python -m pip install --quiet -r requirements/coverage.txt
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort=cover

audit: $(AUDIT)  ## known vulnerabilities of the locked versions
	for list in base cuda ros-jazzy ros-kilted; do \
	    $(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps -r requirements/lock/$$list.txt || exit 1; \
	done

bandit: $(AUDIT)  ## bandit, a linter for security
	$(AUDIT)/bin/bandit --quiet --recursive --configfile pyproject.toml nightseg_ros launch bench setup.py

lock: $(AUDIT)  ## requirements/lock/ anew; ARGS=--upgrade for the newest versions
	$(AUDIT)/bin/python requirements/lock.py $(ARGS)

$(AUDIT): requirements/audit.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet -r $<
	@touch $@

colcon: $(STAMP)  ## build and test in a fresh colcon workspace, out/colcon; ARGS as for test
	$(BIN)/python -m pip install --quiet -r requirements/colcon.txt
	rm -rf out/colcon && mkdir -p out/colcon/src && ln -s ../../.. out/colcon/src/nightseg
	cd out/colcon && PATH="$(abspath $(BIN)):$$PATH" colcon build
	cd out/colcon && PATH="$(abspath $(BIN)):$$PATH" colcon test --return-code-on-test-failure \
	    --event-handlers console_direct+ --pytest-args $(ARGS)

clean:  ## remove what was built and written, but not the virtual environments
	rm -rf out build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find nightseg_ros test launch -name __pycache__ -type d -prune -exec rm -rf {} +
