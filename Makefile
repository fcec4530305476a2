# make demo   sets up a virtual environment and separates the example song
# make test   sets up a virtual environment, then lint, types and tests
# make page   tests the page in Chromium
# make docs   builds the site of the documents in build/docs
# make bench  compares with the published package (SONG=... for a song of your own): half an hour

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DIFFQ := $(VENV)/.diffq

.PHONY: demo test page docs lint slow bench clean
SONG ?= examples/song.flac

demo: $(READY)
	$(BIN)/python examples/demo.py

test: lint $(DIFFQ)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

page: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser -n auto --dist loadfile

docs: $(READY)
	$(BIN)/sphinx-build -q --fail-on-warning --keep-going -c docs . build/docs
	cp build/docs/README.html build/docs/index.html

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.compare '$(SONG)'

slow: $(READY)
	$(BIN)/pytest -m slow

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(DIFFQ): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt diffq \
		|| echo "without a C compiler there is no diffq, and the tests of parity with it are skipped"
	touch $@

clean:
	rm -rf $(VENV) build separated
