# Each target is a few plain commands; without make (Windows), see docs/install.md.
PYTHON ?= python3
BIN := .venv/bin
# Tests in one process more than there are cores: some wait for browsers, servers and killed runs.
PARALLEL = -n $(shell $(PYTHON) -c "import os; print(1 + os.cpu_count())") --dist worksteal
CPU_WHEELS := --index-url https://download.pytorch.org/whl/cpu
MINUTES ?= 10

.PHONY: help demo app test test-fast test-lowest test-onnx campaign lint screenshots

help:  ## list the targets (the default)
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1\t\2/p' Makefile | expand -t 20
	@echo "make ... CPU=1      install the CPU builds of torch and torchvision: no CUDA libraries, 4 GB less"

demo: .venv/runtime  ## train on the bundled sample, plot, evaluate, and write outputs/captions_result.html
	$(BIN)/python train.py
	$(BIN)/python visualize_loss.py
	$(BIN)/python evaluate.py
	$(BIN)/python inference_visualize.py

app: .venv/demo  ## open the web demo in the browser
	$(BIN)/python -m streamlit run app.py

test: .venv/dev  ## all tests except the slow ones
	$(BIN)/python -m pytest $(PARALLEL) --durations=10

test-fast: .venv/dev  ## unit tests only: no browser, no processes, no scripts from end to end
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not browser and not process and not campaign"

test-lowest:  ## all tests except the slow ones, on the lowest versions that requirements*.txt allow
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --compile-bytecode --python .venv-lowest/bin/python \
		--resolution lowest-direct -r requirements-dev.txt
	.venv-lowest/bin/python -m pytest $(PARALLEL)

test-onnx: .venv/dev  ## tests of onnx_caption.py and serve.py in an environment without torch
	test -x .venv-onnx/bin/python || $(PYTHON) -m venv .venv-onnx
	.venv-onnx/bin/python -m pip install --quiet -r requirements-serve.txt pytest -c constraints.txt
	$(BIN)/python -m tools.export_onnx pretrained/flickr8k.pth .cache/onnx_captioner
	.venv-onnx/bin/python -m pytest --confcutdir tests/deploy tests/deploy

campaign: .venv/dev  ## kill, fill disks and attack for about MINUTES=10; SEED=N repeats the random choices
	$(BIN)/python -m pytest $(PARALLEL) -m campaign --campaign_minutes=$(MINUTES) $(if $(SEED),--campaign_seed=$(SEED)) tests/campaign

lint: .venv/dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

screenshots: .venv/dev  ## docs/app_*.png and docs/gallery_*.png
	$(BIN)/python -m tools.screenshots

.venv/runtime: requirements.txt constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.11 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the requirements into .venv: 2 to 3 minutes, 6 GB (2 GB with CPU=1)"
	$(if $(CPU),$(BIN)/python -m pip install --quiet torch torchvision -c constraints.txt $(CPU_WHEELS))
	$(BIN)/python -m pip install --quiet -r requirements.txt -c constraints.txt
	touch $@

.venv/demo: .venv/runtime requirements-demo.txt
	$(BIN)/python -m pip install --quiet -r requirements-demo.txt -c constraints.txt
	touch $@

.venv/dev: .venv/demo requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	touch $@
