# Thin: each target is a few plain commands. Without make (Windows), see "Without make" in the README.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint screenshots

demo: .venv/runtime  ## learn from the bundled sample, plot, score, and write outputs/captions_result.html
	$(BIN)/python train.py
	$(BIN)/python visualize_loss.py
	$(BIN)/python evaluate.py
	$(BIN)/python inference_visualize.py

test: .venv/dev  ## all tests but the slow ones
	$(BIN)/python -m pytest

lint: .venv/dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

screenshots: .venv/dev  ## docs/app_*.png and, after `make demo`, docs/gallery_*.png
	$(BIN)/python -m tools.screenshots

.venv/runtime: requirements.txt constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.11 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -c constraints.txt
	touch $@

.venv/dev: .venv/runtime requirements-demo.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	touch $@
