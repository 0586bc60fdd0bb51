# Entry points; each does the set-up that it needs. `make help` lists them.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SYSTEM_PACKAGES := gcc make pkg-config libc6-dev libnghttp2-dev zlib1g-dev python3-dev python3-venv
CORE_SOURCES := $(wildcard src/infer/_core/*.pyx src/infer/_core/*.pxd src/infer/_core/capi/*.pxd)
PYTHON_SOURCES := $(shell find src/infer -name '*.py' -o -name '*.pyi')
BUILD_INPUTS := setup.py pyproject.toml $(CORE_SOURCES) $(wildcard protos/*.proto protos/*/*/*.proto)
PYTEST := -m pytest -q -p no:cacheprovider
# Processes of the suite, each with whole files of tests.
WORKERS ?= $(shell n=$$(nproc); echo $$((n > 4 ? 4 : n)))
PARALLEL := -n $(WORKERS) --dist loadfile
TESTS ?= tests
PATHS ?= examples/models
ARGS ?=

.PHONY: help setup serve demo test test-release test-debug bench bench-growth bench-wire bench-floods bench-reload bench-models bench-overload bench-fairness bench-cache bench-quotas bench-slo bench-breaker bench-split bench-replicas bench-rollout bench-shadow bench-replay micro lint debug sanitize \
  conformance wheel-check portable-check clean fuzz fuzz-corpus

help:
	@echo "make serve        set up and serve examples/models (PATHS=... for others)"
	@echo "make demo         serve the examples, call them, print predictions against the truth"
	@echo "make test         set up and run the suite on the release and on the debug build"
	@echo "make sanitize     the suite under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make fuzz         libFuzzer on session, message and decoder (FUZZ=session SECONDS=600)"
	@echo "make conformance  independent clients and other projects' test suites, installed under build/"
	@echo "make bench        this server and a plain baseline side by side (ARGS='--help')"
	@echo "make bench-growth what connections, streams, requests and time cost this server"
	@echo "make bench-wire   streams, TLS, 16 MiB messages and slow peers, each against what it is held to"
	@echo "make bench-floods each flood of HTTP/2 beside a good client, and calls that good clients give up on"
	@echo "make bench-reload versions that come and go under load: failed calls, the tail, memory, CPU"
	@echo "make bench-replicas three replicas that share one cache beside one server, and one of them killed"
	@echo "make bench-models 1,000 small models: time until ready, memory, CPU of one among them, fairness"
	@echo "make bench-fairness what two models get of a core when one is asked for a hundred times as much"
	@echo "make bench-cache what a hit costs, what a cache costs that is of no use, and what one of rows saves"
	@echo "make bench-quotas what a tenant over its quota costs another, and what quotas cost"
	@echo "make bench-slo    --slo-p99-ms beside every fixed setting, on steps and bursts"
	@echo "make bench-overload up to five times of what the server can do: what is still answered in time"
	@echo "make bench-breaker what a breaker costs a call, and how soon a version that fails is out of use, and back"
	@echo "make bench-split  what it costs a call that its model's traffic is divided over three versions"
	@echo "make bench-rollout versions that are worse, rolled out under load: when each is taken back, and one that is as good"
	@echo "make bench-shadow what a shadow that is ten times as slow costs those who are answered"
	@echo "make bench-replay captured calls sent again to the same version and to a quantised one, and what a capture costs"
	@echo "make wheel-check  build the wheel, install it alone in a new environment, run the demonstration"
	@echo "make portable-check  build a package without libnghttp2, run the demonstration by grpcio"
	@echo "make micro        time each module of the core"
	@echo "make instructions what valgrind counts of single operations"
	@echo "make lint         ruff, mypy, cython-lint"

# System headers come from the package manager when root; else the one line to run is printed.
$(VENV)/.system:
	@if ! pkg-config --exists libnghttp2 zlib 2>/dev/null || ! command -v cc >/dev/null \
	    || ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(SYSTEM_PACKAGES); \
	  else \
	    echo "infer needs system packages; run:"; echo "    sudo apt-get install -y $(SYSTEM_PACKAGES)"; exit 1; \
	  fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infer needs Python 3.11 or newer: make PYTHON=python3.x")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.packages: $(VENV)/.system pyproject.toml
	$(PY) -m pip install -q --upgrade pip 'setuptools>=77'
	$(PY) -m pip install -q 'cython>=3.1' 'grpcio-tools>=1.71'
	INFER_BUILD=release $(PY) -m pip install -q --no-build-isolation -e '.[dev]'
	@touch $@

build/release/.built: $(BUILD_INPUTS) | $(VENV)/.packages
	$(PY) setup.py -q build_ext --inplace
	@touch $@

build/debug/.built: $(BUILD_INPUTS) $(PYTHON_SOURCES) | $(VENV)/.packages
	INFER_BUILD=debug $(PY) setup.py -q build -b build/debug --build-lib build/debug/lib
	@touch $@

build/sanitize/.built: $(BUILD_INPUTS) $(PYTHON_SOURCES) | $(VENV)/.packages
	INFER_BUILD=sanitize $(PY) setup.py -q build -b build/sanitize --build-lib build/sanitize/lib
	@touch $@

setup: $(VENV)/.packages build/release/.built

serve: setup
	@exec $(VENV)/bin/infer serve $(PATHS) $(ARGS)

demo: setup
	$(VENV)/bin/infer demo

debug: build/debug/.built

test-release: setup
	$(PY) $(PYTEST) $(PARALLEL) $(TESTS)

test-debug: setup build/debug/.built
	PYTHONPATH=build/debug/lib $(PY) $(PYTEST) $(PARALLEL) $(TESTS)

test: test-release test-debug

sanitize: setup build/sanitize/.built
	PYTHONPATH=build/sanitize/lib PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libstdc++.so)" \
	  $(PY) $(PYTEST) $(PARALLEL) tests/unit tests/property tests/integration tests/bad_input

FUZZ ?= session message decoder
SECONDS ?= 600
FUZZ_PACKAGES := clang-14 libclang-rt-14-dev
FUZZ_ENV = PYTHONHOME=$$($(PY) -c 'import sys; print(sys.base_prefix)') PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 \
  PYTHONPATH=build/fuzz/lib:.:$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

$(VENV)/.clang: | $(VENV)/.system
	@if ! command -v clang-14 >/dev/null || ! clang-14 -print-file-name=libclang_rt.fuzzer-x86_64.a | grep -q /; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(FUZZ_PACKAGES); \
	  else \
	    echo "fuzzing needs clang; run:"; echo "    sudo apt-get install -y $(FUZZ_PACKAGES)"; exit 1; \
	  fi; \
	fi
	@touch $@

build/fuzz/.built: $(BUILD_INPUTS) $(PYTHON_SOURCES) | $(VENV)/.packages $(VENV)/.clang
	INFER_BUILD=fuzz $(PY) setup.py -q build -b build/fuzz --build-lib build/fuzz/lib
	@touch $@

build/fuzz/driver: tests/fuzz/driver.c | build/fuzz/.built
	clang-14 -g -O1 -fsanitize=fuzzer,address,undefined -rdynamic -o $@ $< $$($(PY) -c 'import sysconfig as s; \
	  v = s.get_config_var; lib = v("LIBDIR"); \
	  print("-I" + s.get_path("include"), "-L" + lib, "-Wl,-rpath," + lib, "-lpython" + v("LDVERSION"))')

# What is found that should not be lies in build/fuzz/found; INFER_FUZZ=<target> build/fuzz/driver FILE shows it again.
fuzz: setup build/fuzz/.built build/fuzz/driver
	@mkdir -p build/fuzz/found
	@$(PY) -m tests.fuzz.seeds build/fuzz/corpus
	@set -e; for target in $(FUZZ); do \
	  echo "$$target: $(SECONDS) s"; \
	  $(FUZZ_ENV) INFER_FUZZ=$$target build/fuzz/driver -artifact_prefix=build/fuzz/found/$$target- -detect_leaks=0 \
	    -rss_limit_mb=4096 -len_control=0 -max_total_time=$(SECONDS) -print_final_stats=1 $(ARGS) build/fuzz/corpus/$$target; \
	done

# Replaces the kept corpus by a small one that reaches as much of the code as all that was found since.
fuzz-corpus: setup build/fuzz/.built build/fuzz/driver
	@set -e; for target in $(FUZZ); do \
	  rm -rf build/fuzz/merged/$$target && mkdir -p build/fuzz/merged/$$target; \
	  $(FUZZ_ENV) INFER_FUZZ=$$target build/fuzz/driver -detect_leaks=0 -rss_limit_mb=4096 \
	    -max_len=1024 -merge=1 build/fuzz/merged/$$target build/fuzz/corpus/$$target; \
	  $(PY) -m tests.fuzz.corpus $$target build/fuzz/merged/$$target; \
	done

conformance: setup
	INFER_LONG_TESTS=1 $(PY) $(PYTEST) -rs tests/conformance

bench: setup
	$(PY) -m bench.compare $(ARGS)

bench-growth: setup
	$(PY) -m bench.growth $(ARGS)

bench-wire: setup
	$(PY) -m bench.wire $(ARGS)

bench-floods: setup
	$(PY) -m bench.load.floods $(ARGS)

bench-reload: setup
	$(PY) -m bench.load.reload $(ARGS)

bench-quotas: setup
	$(PY) -m bench.load.quotas $(ARGS)

bench-split: setup
	$(PY) -m bench.load.split $(ARGS)

bench-cache: setup
	$(PY) -m bench.caching $(ARGS)

bench-models: setup
	$(PY) -m bench.load.many_models $(ARGS)

bench-fairness: setup
	$(PY) -m bench.load.fairness $(ARGS)

bench-slo: setup
	$(PY) -m bench.load.slo $(ARGS)

bench-overload: setup
	$(PY) -m bench.load.overload $(ARGS)

bench-replicas: setup
	$(PY) -m bench.load.replicas $(ARGS)

bench-breaker: setup
	$(PY) -m bench.load.breaker $(ARGS)

bench-rollout: setup
	$(PY) -m bench.load.rollout $(ARGS)

# What a shadow costs those who are answered.
bench-shadow: setup
	$(PY) -m bench.load.shadow $(ARGS)

# Captured calls sent again, and what a capture costs.
bench-replay: setup
	$(PY) -m bench.load.replay $(ARGS)

# Built from what git knows, so that nothing left by other builds gets in; run where no checkout is near.
wheel-check: $(VENV)/.packages
	rm -rf build/wheel && mkdir -p build/wheel/source build/wheel/empty
	git ls-files -z | xargs -0 cp --parents -t build/wheel/source
	$(PY) -m pip wheel -q --no-deps -w build/wheel build/wheel/source
	@! $(PY) -m zipfile -l build/wheel/*.whl | grep '_testing.*\.so' || { echo "the wheel has modules of the tests"; exit 1; }
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install -q build/wheel/*.whl
	cd build/wheel/empty && env -u PYTHONPATH ../venv/bin/infer demo

# As on a machine without libnghttp2.
portable-check: $(VENV)/.packages
	INFER_WITHOUT_NGHTTP2=1 $(PY) setup.py -q build -b build/portable --build-lib build/portable/lib
	@! ls build/portable/lib/infer/_core | grep -E '^(protocol|http2_|load_client).*[.]so' \
	  || { echo "the package has modules of libnghttp2"; exit 1; }
	cd build/portable && PYTHONPATH=lib $(CURDIR)/$(PY) -m infer demo

micro: setup
	$(PY) -m bench.micro $(ARGS)

.PHONY: instructions
instructions: setup
	$(PY) -m bench.micro.instructions $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint src/infer/_core

clean:
	rm -rf build $(VENV) src/*.egg-info
	find src -name '*.so' -delete
