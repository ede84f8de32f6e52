# Two commands do everything on a machine with only python3 (3.10-3.13) and make:  make demo   make test
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
VENV3 := .venv-gradio3
# The files of the suite side by side, one worker a core; a worker and the servers that it starts take about 2 GB.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: demo serve test lint types check-python train bench bench-gpu quality bench-repetition soak fleet-demo bench-fleet clean

demo: $(VENV)/.runtime  ## one prompt: native, direct 4x, latent hires fix 4x, ScaleDiff 4x -> outputs/demo.png
	$(PY) -m pocket_webui.demo

serve: $(VENV)/.runtime  ## the page and the API on http://127.0.0.1:7860
	$(PY) -m pocket_webui serve

test: $(VENV)/.dev $(VENV)/.fleet $(VENV3)/.installed lint types  ## the whole suite
	OMP_NUM_THREADS=1 $(PY) -m pytest tests $(PARALLEL)
	OMP_NUM_THREADS=1 $(VENV3)/bin/python -m pytest tests/page

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

types: $(VENV)/.dev
	$(PY) -m mypy

train: $(VENV)/.runtime  ## trains a pocket checkpoint from nothing into outputs/training: 150 minutes on two cores; training/README.md
	$(PY) -m training

bench: $(VENV)/.bench  ## attention, one UNet and one FLUX call, a whole run, the tiled VAE, side by side -> docs/performance.md
	$(PY) -m benchmarks.attention_core --device cpu --seconds 240
	$(PY) -m benchmarks.unet_call --device cpu
	$(PY) -m benchmarks.flux_call --device cpu
	$(PY) -m benchmarks.whole_run
	$(PY) -m benchmarks.tiled_vae
	$(PY) -m benchmarks.performance --take outputs

bench-gpu: $(VENV)/.bench $(VENV)/.dev  ## the same on a GPU, the real models' shapes, at most 7 minutes -> outputs/gpu
	PYTHON=$(abspath $(PY)) benchmarks/gpu.sh outputs/gpu
	$(PY) -m benchmarks.performance --gpu outputs/gpu/gpu.json

quality: $(VENV)/.runtime  ## every method against the true distribution; resumable, many hours of processor time
	$(PY) -m benchmarks.quality

bench-repetition: $(VENV)/.runtime  ## counts objects over 32 seeds at 4x
	$(PY) -m benchmarks.repetition

fleet-demo: $(VENV)/.fleet  ## 12 jobs on two pocket WebUIs, one of them killed in the middle -> outputs/fleet-demo/report.html
	$(PY) -m fleet.demo

bench-fleet: $(VENV)/.fleet  ## overhead, scaling, memory and recovery of the fleet runner on simulated WebUIs
	$(PY) -m benchmarks.fleet
	$(PY) -m benchmarks.performance

soak: $(VENV)/.runtime  ## 10,000 random jobs with something going wrong in most, about two hours -> docs/reliability.md
	mkdir -p outputs
	$(PY) -m benchmarks.soak --jobs 10000 --out outputs/soak.json; found=$$?; \
	  $(PY) -m benchmarks.soak.page --take outputs/soak.json && exit $$found

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version); Python 3.10 to 3.13 is needed: make PYTHON=python3.11 ..."; exit 1; }

$(VENV)/bin/python: | check-python
	$(PYTHON) -m venv $(VENV)

# ldm comes without its dependencies: they would pull in a training framework that nothing here uses.
$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps stable-diffusion-sdkit==2.1.5
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.fleet: requirements-fleet.txt $(VENV)/.runtime
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-fleet.txt
	touch $@

$(VENV)/.bench: requirements-bench.txt $(VENV)/.runtime
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

$(VENV3)/.installed: requirements-gradio3.txt | check-python
	$(PYTHON) -m venv $(VENV3)
	$(VENV3)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-gradio3.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV3) outputs
