# Every target sets up .venv by itself (.ci/environment.sh); PYTHON=python3.12 chooses the interpreter.
PY := .venv/bin/python
CFG := experiments/cfgs/ssd_lite_mobilenetv1_shapes.yml
RUN := experiments/models/shapes
SAMPLES := data/shapes_samples
# A process for each core, up to eight, with one thread each: more threads than cores slow each other down.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env quickstart test test-all mutation fuzz lint bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

env: ## create or update .venv; the other targets do it themselves
	@sh .ci/environment.sh

quickstart: env ## draw a data set, train a small detector for minutes, score it, draw what it finds
	$(PY) -m lib.dataset.shapes data/shapes
	$(PY) train.py --cfg $(CFG) --phase train
	$(PY) train.py --cfg $(CFG) --phase test
	@mkdir -p $(SAMPLES)
	@head -n 12 data/shapes/ImageSets/Main/test.txt | sed 's#.*#data/shapes/JPEGImages/&.jpg#' | xargs -I % cp % $(SAMPLES)
	$(PY) demo.py --cfg $(CFG) --demo $(SAMPLES) -t folder
	@printf '%s\n' '' 'Done. What is there now:' \
	    '  $(RUN)/demo     pictures with the boxes that were found' \
	    '  $(RUN)          checkpoints, results, log; gallery.html has the figures, the worst and the best images' \
	    'Losses, mAP, pictures and more in TensorBoard: run this and open http://localhost:6006' \
	    '  .venv/bin/tensorboard --logdir $(RUN)' \
	    'Try next:' \
	    '  $(PY) train.py --cfg $(CFG) --phase train,test SEED=1 EXP_DIR=$(RUN)_seed1' \
	    '      any key of the configuration can be changed so; --help-config lists them all;' \
	    '      .venv/bin/tensorboard --logdir experiments/models compares the runs' \
	    '  README.md, for training on your own photographs'

test: env ## the fast tests
	$(PYTEST) -m "not slow"

test-all: env ## all tests, the slow ones too
	$(PYTEST)

mutation: env ## break central lines one by one in a copy and see that a test fails each time
	$(PY) tests/mutation.py

fuzz: env ## feed broken files to every reader for SECONDS (60) each
	$(PY) tests/fuzz.py $(or $(SECONDS),60)

lint: env ## ruff
	$(PY) -m ruff check .

bench: env ## measure speed on this machine
	$(PY) experiments/bench.py
