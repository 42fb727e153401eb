# make demo   drive a simulated robot through ROS 2 with the pruned policy; options in ARGS
# make test   lint, types, import contract, tests
# make replay-example   score pruning methods on the recording in test/bags; report in out/replay
# Both do all set-up in .venv on a machine with only Python (3.10 to 3.13) and git.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help demo replay-example test lint clean

help:
	@sed -n 's/^# //p' Makefile

demo:
	@$(PYTHON) tools/prepare.py demo
	$(BIN)/python -m safe_vla_ros.demo $(ARGS)

replay-example:
	@$(PYTHON) tools/prepare.py demo
	$(BIN)/python -m safe_vla_ros.replay test/bags/drawer_open \
	  --params config/mini_metaworld.yaml --compare none,fastv,random --latency 60 \
	  --out out/replay --overwrite $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

# make faults try every fault on the node over ROS 2, in minutes; writes docs/faults.md
.PHONY: faults
faults:
	@$(PYTHON) tools/prepare.py test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest test/faults -m 'slow or not slow' \
	  --fault-report docs/faults.md $(ARGS)

lint:
	@$(PYTHON) tools/prepare.py test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf build install log out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
