# The whole developer life. Needs make, a Python of at least 3.11 and a package index; everything else goes into .venv.
PYTHON ?= $(firstword $(foreach python,python3.11 python3 python3.12 python3.13 python3.14,$(shell \
	$(python) -c 'import sys; sys.version_info >= (3, 11) and print("$(python)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lowest lint types docs evaluate evaluate-quick evaluate-full bench matrix fuzz clean

help: ## Say what each target does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "dnp-guard needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(DEMO_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[lab]'
	@touch $@

# Everything else; what the demo needs is in it.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev,docs]'
	# Its samplers alone are tested; what the rest of it asks for (torchvision, clip, wandb) is not wanted.
	$(PIP) --no-deps k-diffusion
	@touch $(DEMO_READY) $@

demo: $(DEMO_READY) ## Generate images unguarded and guarded, side by side, on the embedded models.
	$(BIN)/dnp-guard demo

# The tests' models are tiny: more torch threads only wait for each other and take cores from other processes.
test lowest: export OMP_NUM_THREADS ?= 1

test: $(READY) ## Run every test.
	$(BIN)/python -m pytest

lowest: $(READY) ## Test a plain installation with the oldest dependencies that the ranges allow.
	DNP_GUARD_LOWEST=1 $(BIN)/python -m pytest tests/test_install.py

lint: $(READY) ## Check style, prose, formatting and the layers.
	$(BIN)/ruff check
	$(BIN)/python -m docs.prose
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(READY) ## Check types, strictly.
	$(BIN)/mypy

docs: $(READY) ## Generate the reference pages and build the documentation; warnings are errors.
	$(BIN)/python -m docs.generate
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Scales at which a static negative suppresses less, and drifts less: what ours is compared with at equal suppression.
RIVALS := static-separate@5,static-separate@8
WORKERS ?= 2
EVALUATE := $(BIN)/dnp-guard evaluate --again --workers $(WORKERS)

# The ordinary model, the few-step one, whose report holds both, and the guard alone on twice as many prompts.
evaluate: $(READY) ## Measure every method and write docs/explanation/results.md; QUICK=1 for a sign of life.
ifdef QUICK
	$(EVALUATE) --quick --out build/evaluate-quick
	$(EVALUATE) --quick --model glyphs-fast --out build/evaluate-quick-fast --merge build/evaluate-quick/results.json
else
	$(EVALUATE) --n 200 --methods all,$(RIVALS) --sets attack,benign,multi --grow only --out build/evaluate
	$(EVALUATE) --n 200 --model glyphs-fast --sets attack,benign,multi --grow no --out build/evaluate-fast \
		--merge build/evaluate/results.json --results docs/explanation/results.json
	$(EVALUATE) --n 400 --methods dnp-guard,dnp-guard-retry --sets attack,benign --grow no \
		--out build/evaluate-guard --results docs/explanation/results-guard.json
	for set in attack benign multi; do \
		cp build/evaluate/sheet-$$set.png docs/_static/results-sheet-$$set.png; \
		cp build/evaluate-fast/sheet-$$set.png docs/_static/results-sheet-$$set-fast.png; \
	done
	$(BIN)/python -m docs.generate
endif

evaluate-quick: ## The same as make evaluate QUICK=1.
	$(MAKE) evaluate QUICK=1

evaluate-full: $(READY) ## Measure every method on every prompt set; what was cut short goes on.
	$(EVALUATE) --methods all,$(RIVALS) --sets attack,benign,multi,explicit,near-benign,late \
		--out build/evaluate-full --results docs/explanation/results.json
	$(BIN)/python -m docs.generate

bench: $(READY) ## Measure; nothing is asserted of the clock.
	$(BIN)/python -m pytest tests/bench -o python_files='bench_*.py' --benchmark-only

# What looks after the supply chain is no dependency of the project, and has an environment of its own.
TOOLS := .venv-tools
TOOLS_READY := $(TOOLS)/.ready
$(TOOLS_READY): Makefile | $(BIN)/python
	$(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --disable-pip-version-check -q cyclonedx-bom==7.5.0 pip-audit==2.10.1 uv==0.13.9
	@touch $@

# torch is left out: which of its builds is right is the machine's to say, and each brings its own libraries.
OF_TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
	nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
	nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
	nvidia-nvshmem-cu13 nvidia-nvtx

.PHONY: lock locked dist audit
lock: $(TOOLS_READY) ## Write requirements.lock: the versions of constraints.txt with the hashes of their files.
	$(TOOLS)/bin/uv pip compile -q --universal --python-version 3.11.9 --generate-hashes --no-header --no-annotate \
		-c constraints.txt --extra dev --extra docs $(addprefix --no-emit-package=,$(OF_TORCH)) \
		pyproject.toml -o requirements.lock

locked: | $(BIN)/python ## Install into .venv-locked by requirements.lock: nothing whose hash is another.
	$(BIN)/python -m venv .venv-locked
	.venv-locked/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-deps torch
	.venv-locked/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements.lock
	.venv-locked/bin/python -m pip install --disable-pip-version-check -q --no-deps -e .

dist: $(READY) $(TOOLS_READY) ## Build the wheel, and beside it its bill of materials in CycloneDX.
	$(PIP) wheel -q --no-deps -w dist .
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --mc-type library \
		--output-reproducible --of JSON -o dist/dnp-guard.cdx.json
	@ls dist

audit: $(READY) $(TOOLS_READY) ## Look what is installed up among known vulnerabilities; 1 for one, 2 for what was not reached.
	$(BIN)/python -m tests.supply $(TOOLS)/bin/pip-audit

# About ten minutes on one core; a run that was cut short goes on where it was.
matrix: $(READY) ## Steer tiny pipelines of every class that can be; prints a table and writes docs/reference/matrix.json.
	$(BIN)/python -m tests.hosts.matrix

.PHONY: host-check
host-check: $(READY) ## Check a running host: A1111=URL or COMFYUI=URL, and SERVICE=URL PLAIN=FILE SIZE=N STEPS=N.
	$(BIN)/python -m tests.hosts.host_check $(if $(A1111),--a1111 $(A1111)) $(if $(COMFYUI),--comfyui $(COMFYUI)) \
		$(if $(SERVICE),--service $(SERVICE)) $(if $(PLAIN),--plain $(PLAIN)) $(if $(SIZE),--size $(SIZE)) \
		$(if $(STEPS),--steps $(STEPS))

export CHROMIUM ?= chromium
.PHONY: browser pages screenshots _has-chromium _has-browser
_has-chromium:
	@command -v $(CHROMIUM) > /dev/null || { echo "there is no chromium: apt-get install chromium" >&2; exit 2; }

_has-browser: _has-chromium $(READY)
	@$(BIN)/python -c "import axe_playwright_python, playwright" 2> /dev/null || \
		{ echo "playwright is missing: $(PIP) -e '.[browser]'" >&2; exit 2; }

browser: _has-browser ## Drive the console in a browser; needs Debian's chromium and the extra `browser`.
	$(BIN)/python -m pytest tests/browser -o python_files='browse_*.py'

pages: _has-browser docs ## Look at every page of the documentation, wide and narrow: parts cut off, pictures, links.
	$(BIN)/python -m tests.browser.pages docs/_build/html

screenshots: _has-browser ## Take the screenshots of the console and of a report anew.
	$(BIN)/python -m tests.browser.shots docs/_static

# A serving engine pins what the project does not: it has an environment of its own, without what needs a GPU.
ENGINES := .venv-engines
ENGINES_READY := $(ENGINES)/.ready
SGLANG_NEEDS := aiohttp cloudpickle dill einops fastapi httpx imageio IPython msgpack msgspec openai orjson pybase64 \
	python-dateutil python-multipart pyzmq scipy setproctitle uvicorn xxhash
$(ENGINES_READY): pyproject.toml constraints.txt Makefile | $(BIN)/python
	$(BIN)/python -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[diffusers]' pytest
	$(ENGINES)/bin/python -m pip install --disable-pip-version-check -q --no-deps vllm-omni==0.30.0 sglang==0.5.23
	$(ENGINES)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt $(SGLANG_NEEDS)
	@touch $@

.PHONY: engines
engines: $(ENGINES_READY) ## Run the plugins in the real vLLM-Omni and SGLang-Diffusion, as far as they run without a GPU.
	$(ENGINES)/bin/python -m tests.hosts.engines_real
	$(ENGINES)/bin/python -m tests.hosts.engines_own
	$(ENGINES)/bin/python -m tests.hosts.engines_sglang

fuzz: $(READY) ## Read made-up policies for a minute; needs the extra `fuzz`.
	@mkdir -p build/fuzz && cp policies/*.yaml build/fuzz/
	$(BIN)/python tests/fuzz/fuzz_policy.py -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=4096 build/fuzz

clean: ## Remove what was built; the virtual environments stay.
	rm -rf build dist demo docs/_build .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
