# make demo   sets up a virtual environment and separates the example song
# make test   sets up a virtual environment, then lint, types and tests
# make page   tests the page in Chromium
# make docs   builds the site of the documents in build/docs
# make sanitize  tests the kernels with AddressSanitizer and UndefinedBehaviorSanitizer
# make lowest    runs every command with the lowest versions of its dependencies
# make bench  compares with the published package (SONG=... for a song of your own): half an hour

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGE := $(VENV)/.package
READY := $(VENV)/.ready
DIFFQ := $(VENV)/.diffq

.PHONY: demo test page docs lint slow sanitize lowest bench clean
SONG ?= examples/song.flac

demo: $(PACKAGE)
	$(BIN)/python examples/demo.py

test: lint $(DIFFQ)
	@echo "the tests take about 5 minutes on two idle cores"
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

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

# The build for this processor, and two for AVX-512 whose instructions are emulated. Python is not
# instrumented, so the sanitizers come first by LD_PRELOAD; exceptions need the C++ library there, too.
SANITIZED := build/sanitized
NATIVE := src/htdemucs/fast/native
OWN := $(if $(filter x86_64,$(shell uname -m)),avx2,neon)
OWN_FLAGS := -std=c++17 -g -O1 -fopenmp -I $(NATIVE) $(if $(filter avx2,$(OWN)),-mavx2 -mfma)
EMULATED := -I tests/fast/emulated -D__AVX512F__ -Wno-psabi
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all

$(SANITIZED)/kernels_avx512.so: private BUILD_FLAGS := $(EMULATED)
$(SANITIZED)/kernels_avx512bf16.so: private BUILD_FLAGS := $(EMULATED) -D__AVX512BF16__
$(SANITIZED)/kernels_%.so: $(wildcard $(NATIVE)/* tests/fast/emulated/*)
	mkdir -p $(SANITIZED)
	$(CXX) $(OWN_FLAGS) $(BUILD_FLAGS) $(SANITIZERS) -fPIC -c $(NATIVE)/kernels.cpp -o $(@:.so=.o)
	$(CXX) -shared $(SANITIZERS) $(@:.so=.o) -o $@

$(SANITIZED)/run_kernels: tests/fast/run_kernels.cpp $(wildcard $(NATIVE)/*)
	mkdir -p $(SANITIZED)
	$(CXX) $(OWN_FLAGS) $< -o $@

sanitize: $(READY) $(SANITIZED)/run_kernels $(foreach b,$(OWN) avx512 avx512bf16,$(SANITIZED)/kernels_$b.so)
	if command -v valgrind > /dev/null; then valgrind -q --error-exitcode=1 $(SANITIZED)/run_kernels; \
		else echo "without valgrind, reads of uninitialised memory are not looked for"; fi
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 \
		$(BIN)/pytest tests/fast --kernels $(SANITIZED) --hypothesis-profile=thorough

# On the lowest Python, because old versions have no wheels for newer ones. The extras docs and dev
# are left out: constraints.txt pins what they bring, and no command needs it.
LOWEST := build/lowest
lowest: private PYTHON := python3.11
lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) tests/lowest/versions.py > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: -r $(LOWEST)/requirements.txt .
	$(LOWEST)/bin/python tests/lowest/smoke.py

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

$(PACKAGE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing the package and its server"
	$(INSTALL) -e '.[server]'
	touch $@

$(READY): $(PACKAGE)
	@echo "installing everything that the tests need"
	$(INSTALL) -e '.[dev]'
	touch $@

$(DIFFQ): $(READY)
	$(INSTALL) diffq \
		|| echo "without a C compiler there is no diffq, and the tests of parity with it are skipped"
	touch $@

clean:
	rm -rf $(VENV) build separated
