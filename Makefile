# All commands make .venv on first use: torch first, from the constraints, then multifuse with its kernels.
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: mosi test docs bench evidence wheel try-wheel setup clean

mosi: setup
	.venv/bin/python examples/train_mosi.py --text-encoder none

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --num-workers 2
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

docs: .venv/.docs
	PATH="$(CURDIR)/.venv/bin:$$PATH" NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "Open build/docs/index.html"

bench: setup
	.venv/bin/python -m benchmarks.speed
	.venv/bin/python -m benchmarks.gpu_speed

evidence: setup
	.venv/bin/python -m benchmarks.evidence

# A source distribution, and the wheel that is made of it: it is tagged with the oldest glibc on which it runs.
wheel: setup
	MULTIFUSE_SKIP_BUILD=1 $(PIP_INSTALL) --no-build-isolation --editable '.[dev,release]'
	rm -rf dist
	MULTIFUSE_REQUIRE_KERNELS=1 .venv/bin/python -m build --no-isolation
	PATH="$(CURDIR)/.venv/bin:$$PATH" auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
		--wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
	.venv/bin/twine check --strict dist/*

# The wheel with the oldest and the newest torch, on every Python of this machine: gigabytes of torch, see the program.
try-wheel:
	.venv/bin/python tools/try_wheel.py dist/*.whl

setup: .venv/.ready

.venv/.ready: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	@echo "Setting up .venv: dependencies and kernels (a few minutes)"
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch numpy setuptools wheel
	@# The kernels need torch only, so they are compiled while the other dependencies are fetched.
	MULTIFUSE_REQUIRE_KERNELS=1 .venv/bin/python setup.py --quiet build_ext --inplace & kernels=$$!; \
	MULTIFUSE_SKIP_BUILD=1 $(PIP_INSTALL) --no-build-isolation --editable '.[dev]'; status=$$?; \
	wait $$kernels && exit $$status
	@# Byte code, on all cores; pip would use one. Some packages contain files of another Python, which do not compile.
	@.venv/bin/python -m compileall -qq -j 0 .venv/lib || true
	.venv/bin/multifuse info
	@touch $@

.venv/.docs: .venv/.ready
	MULTIFUSE_SKIP_BUILD=1 $(PIP_INSTALL) --no-build-isolation --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv build dist runs src/*.egg-info src/multifuse/*.so
