# make demo   drive a simulated robot through ROS 2 with the pruned policy; options go into ARGS
# make test   lint, types, import contract, tests
# make test-jazzy   the tests of the node on ROS 2 Jazzy's wheels, set up in .venv-jazzy
# make faults   try every fault on the node over ROS 2, in minutes; writes docs/faults.md
# make fuzz   attack everything that reads files and messages for ten minutes; options go into ARGS
# make replay-example   score pruning methods on the recording in test/bags; writes out/replay
# make soak   run the node for 20 minutes under everything that may happen; ARGS="--minutes 5"
# make stopping   measure how the arm comes to rest; writes docs/stopping.json
# make lint   only lint, types and the import contract
# make clean  delete what builds and runs have left, but not .venv
# All but clean set up .venv first. You need only Python (3.10 to 3.13) and git.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help demo replay-example test test-jazzy faults fuzz soak stopping lint clean

help:
	@sed -n 's/^# //p' Makefile

demo:
	@$(PYTHON) tools/prepare.py demo
	$(BIN)/python -m safe_vla_ros.demo $(ARGS)

replay-example:
	@$(PYTHON) tools/prepare.py demo
	$(BIN)/python -m safe_vla_ros.replay test/bags/bowl_to_plate \
	  --params config/mini_libero.yaml --compare none,fastv,random --latency 60 \
	  --out out/replay --overwrite $(ARGS)

# What waits for DDS and clocks has the machine alone. 5: ARGS chose no test of that kind.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timed none -n auto --maxprocesses 4 \
	  --dist loadfile $(ARGS) || [ $$? -eq 5 ]
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timed only $(ARGS) || [ $$? -eq 5 ]

soak:
	@$(PYTHON) tools/prepare.py test
	$(BIN)/python test/faults/soak.py $(ARGS)

stopping:
	@$(PYTHON) tools/prepare.py test
	$(BIN)/python test/faults/stopping.py --json docs/stopping.json $(ARGS)

faults:
	@$(PYTHON) tools/prepare.py test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest test/faults -m 'slow or not slow' \
	  --fault-report docs/faults.md $(ARGS)

# A sourced ROS 2 installation would come before the wheels.
test-jazzy: export AMENT_PREFIX_PATH :=
test-jazzy: export PYTHONPATH :=
test-jazzy:
	@$(PYTHON) tools/prepare.py jazzy
	AMENT_PREFIX_PATH=$(CURDIR)/.venv-jazzy OMP_NUM_THREADS=1 \
	  .venv-jazzy/bin/python -m pytest test/ros $(ARGS)

lint:
	@$(PYTHON) tools/prepare.py test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz:
	@$(PYTHON) tools/prepare.py test
	$(BIN)/python test/fuzz $(ARGS)

clean:
	rm -rf build install log out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
