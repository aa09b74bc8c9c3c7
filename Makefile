# Flyball's verbs. On a fresh clone `make demo` and `make test` need nothing before them:
# each first makes .venv from the hashed lock (requirements/dev.txt) if it is not there yet.
#
#   PYTHON=...      the interpreter to make .venv with (default: the first of 3.12, 3.11, 3.13 on the path)
#   LOG=kafka       demo: through a real Apache Kafka on this machine (Java 17, Maven)
#   DEMO_ARGS=...   further arguments of `flyball demo`, likewise BENCH_ARGS (bench spine), PLANE_ARGS, TWIN_ARGS and TEST_ARGS
#   JOBS=...        test processes at once (default: one per core)
#   TARGET=...      fuzz: which targets (default: all), each for SECONDS (60)

JOBS ?= auto
MINUTES ?= 60
SECONDS ?= 60
TARGET ?=
LOG ?=
bin = .venv/bin

.PHONY: help setup demo test check bench proto docs faults-full soak fuzz

help:
	@echo "make setup   make .venv from the hashed requirements lock"
	@echo "make demo    two small fleets on real traffic, one static, one governed (LOG=kafka: through Kafka)"
	@echo "make test    all tests"
	@echo "make check   lint, format, types, import layers, generated code, docs"
	@echo "make bench   how fast the spine and the simulation are, and how quick and costly the plane is over real sockets"
	@echo "make soak    a whole fleet with something of it always broken, for MINUTES (60)"
	@echo "make faults-full  every fault at its full length (about two hours); figures in .flyball/faults.jsonl"
	@echo "make fuzz    input that looks for a way to break each boundary, for SECONDS (60) each; TARGET=... chooses"
	@echo "make proto   generate the Python code of the wire contract again"
	@echo "make docs    build the documentation into site/"

setup: .venv/.ready

.venv/.ready: requirements/dev.txt pyproject.toml
	@PYTHON="$(PYTHON)" scripts/setup_venv

demo: setup
ifeq ($(LOG),kafka)
	@echo "demo: starting a Kafka broker on this machine (it keeps running until scripts/kafka stop)"
	@broker=$$(PYTHON=$(bin)/python scripts/kafka start) && $(bin)/flyball demo --log kafka://$$broker $(DEMO_ARGS)
else
	@$(bin)/flyball demo $(if $(LOG),--log $(LOG)) $(DEMO_ARGS)
endif

test: setup
	$(bin)/python -m pytest -n $(JOBS) --dist loadfile $(TEST_ARGS)

check: setup
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	@for file in $$(find tests -name conftest.py); do echo "$(bin)/mypy $$file"; $(bin)/mypy $$file || exit 1; done
	$(bin)/lint-imports --no-logo
	PYTHON="$(CURDIR)/$(bin)/python" scripts/generate_proto --check
	$(bin)/mkdocs build --strict --quiet

bench: setup
	$(bin)/flyball bench spine $(BENCH_ARGS)
	$(bin)/flyball bench plane $(PLANE_ARGS)
	$(bin)/flyball bench twin $(TWIN_ARGS)

soak: setup
	@PYTHON=$(bin)/python scripts/soak --minutes $(MINUTES) $(SOAK_ARGS)

faults-full: setup
	@mkdir -p .flyball && rm -f .flyball/faults.jsonl
	FLYBALL_FAULTS=full FLYBALL_FAULTS_REPORT=$(CURDIR)/.flyball/faults.jsonl $(bin)/python -m pytest tests/faults $(TEST_ARGS)

fuzz: setup
	scripts/fuzz $(TARGET) --seconds $(SECONDS)

proto: setup
	PYTHON="$(CURDIR)/$(bin)/python" scripts/generate_proto

docs: setup
	$(bin)/mkdocs build --strict
