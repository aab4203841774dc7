PYTHON ?= python3
# Stages say `python`: the environment's own.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup repro test install-test launch-test cluster-test chaos fuzz walkthrough server-test \
  check audit docs ui bench-quality bench-learning bench-throughput

setup: .venv/ready

repro: setup
	dvc repro
	@cat reports/summary.txt

# A worker more than two cores, as tests wait for what they killed; more threads would wait for one
# another.
test: setup
	OMP_NUM_THREADS=1 pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The wheel in an empty environment: packages, size, a first video.
install-test: setup
	INSTALL=1 pytest -rP tests/e2e/test_install.py

# Two processes that train together, as accelerate and torchrun start them, killed and run again.
launch-test: setup
	LAUNCH=1 OMP_NUM_THREADS=1 pytest tests/unit/training/test_launch.py

# Work by video on a real Dask cluster on loopback, a worker killed; how much two are faster than one.
cluster-test: setup
	CLUSTER=1 pytest -rP --durations 0 tests/cluster

# Every command of docs/experiments-walkthrough.md, in a fresh clone with small videos; and reruns.
walkthrough: setup
	WALKTHROUGH=1 pytest tests/pipeline/test_walkthrough.py tests/pipeline/test_lineage.py

# make chaos [N=100]: the pipeline killed anywhere, run again, and compared
chaos: setup
	python -m tests.campaigns.chaos --tries $(or $(N),100)

# make fuzz [N=200]: files damaged by chance, and nothing lost in silence
fuzz: setup
	python -m tests.campaigns.fuzz --tries $(or $(N),200)

# make server-test [KILLS=20]: the pipeline against an MLflow server on PostgreSQL, killed meanwhile
server-test: setup
	$(if $(KILLS),KILLS='$(KILLS)') pytest -rs --durations 0 tests/server

check: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	LOCK=1 pytest --no-header tests/pipeline/test_lock.py

# Known vulnerabilities of the pinned packages, by PyPI's advisories. What cannot be asked is no pass.
audit: .venv/audit
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# The site, in site/; its reference is made of the code.
docs: setup
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

ui: setup
	mlflow ui --host 127.0.0.1 --port 5000

# make bench-quality CLIPS=FOLDER [BENCH='--workers 2 --weights fc=PATH']
bench-quality: setup
	@test -n '$(CLIPS)' || { echo 'name a folder of videos: make $@ CLIPS=FOLDER' >&2; exit 1; }
	python -m benchmarks.quality --clips '$(CLIPS)' $(BENCH)

# make bench-learning CLIPS=FOLDER [BENCH='--weights NAME=PATH ... --seeds 3 --workers 2']
bench-learning: setup
	@test -n '$(CLIPS)' || { echo 'name a folder of videos: make $@ CLIPS=FOLDER' >&2; exit 1; }
	python -m benchmarks.learning --clips '$(CLIPS)' $(BENCH)

# make bench-throughput CLIPS=FOLDER [BENCH='--repeats 3']
bench-throughput: setup
	@test -n '$(CLIPS)' || { echo 'name a folder of videos: make $@ CLIPS=FOLDER' >&2; exit 1; }
	python -m benchmarks.throughput --clips '$(CLIPS)' $(BENCH)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@# What pip does on one core; files that are no Python of this version are no fault.
	@.venv/bin/python -m compileall -qq -j 0 .venv/lib || true
	@.venv/bin/python -c 'import cv2' || { \
	  echo 'OpenCV needs libGL and GLib: sudo apt-get install libgl1 libglib2.0-0' >&2; exit 1; }
	touch $@

# Apart from the project's environment, which it would crowd.
.venv/audit:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet pip-audit || { rm -r $@; exit 1; }
