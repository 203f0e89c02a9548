# All commands make .venv on first use: torch first, from the constraints, then multifuse with its kernels.
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: mosi test docs bench evidence setup clean

mosi: setup
	.venv/bin/python examples/train_mosi.py --text-encoder none

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

docs: .venv/.docs
	PATH="$(CURDIR)/.venv/bin:$$PATH" NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "Open build/docs/index.html"

bench: setup
	.venv/bin/python -m benchmarks.speed

evidence: setup
	.venv/bin/python -m benchmarks.evidence

setup: .venv/.ready

.venv/.ready: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	@echo "Setting up .venv: dependencies, then the kernels (a minute or two)"
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch numpy setuptools wheel
	$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	.venv/bin/multifuse info
	@touch $@

.venv/.docs: .venv/.ready
	MULTIFUSE_SKIP_BUILD=1 $(PIP_INSTALL) --no-build-isolation --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv build runs src/*.egg-info src/multifuse/*.so
