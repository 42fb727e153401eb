# make demo   drive a simulated robot through ROS 2 with the pruned policy; options in ARGS
# make test   lint, types, import contract, tests
# make replay-example   score pruning methods on the recording in test/bags; report in out/replay
# make fuzz   attack everything that reads files and messages for ten minutes; options in ARGS
# All do the set-up they need in .venv on a machine with only Python (3.10 to 3.13) and git.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help demo replay-example test lint fuzz clean

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
