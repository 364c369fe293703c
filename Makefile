# Every command a developer runs. `make demo` and `make test` set up all they need in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ASAN = build/asan
TSAN = build/tsan
OLDEST = build/oldest
# what goes through the dependencies most: isal and zstandard, msgspec, aiohttp with uvloop and yarl, pyyaml, click with rich,
# prometheus-client, cryptography, h2
OLDEST_TESTS = tests/stream tests/image/test_manifest.py tests/image/test_hostile_documents.py tests/registry/http/test_direct_receiver.py \
  tests/registry/http/test_transport.py tests/registry/test_client.py tests/registry/auth/test_kubelet.py \
  tests/cli/test_formatting.py tests/cli/progress/test_display.py tests/cli/test_startup.py tests/cli/test_errors.py tests/cli/results/test_metrics.py \
  tests/test_engine.py tests/trust tests/containerd tests/transfer/test_tee.py tests/transfer/test_gzip_layers.py
# two workers leave a third of two cores idle: many tests wait
CORES = -n $(shell expr $$(nproc) + 1)
SANITIZE = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
PEERS = docker-registry skopeo umoci nginx-light isal strace e2fsprogs xfsprogs containerd gcc-aarch64-linux-gnu qemu-user pigz zopfli libdeflate-tools fsverity erofs-utils btrfs-progs cryptsetup-bin runc crun uidmap fuse3 fuse-overlayfs podman docker.io
SOURCES := $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pyi' -o -name '*.pxd' -o -name '*.c' -o -name '*.h')
CMD = $(BIN)/fastoci pull --store {store} --progress none {image}
STEP = @printf '\n== %s\n'

.PHONY: help demo test oldest check dev attacks cancel hangs gc-storm containerd-storm kills power-cuts hostile asan tsan arm bench rootfs-kills memory startup package peers clean changelog changelog-build cover docs fuzz faults every fault-plans crowd pulp stacks erofs-exam storm field pack-tree differ-exam

help: ## these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

demo: $(VENV)/installed ## install, then pull and unpack an image made of this machine's files
	$(BIN)/python benchmarks/demo.py

test: $(VENV)/installed-test peers ## install, then run all tests on all cores (Debian packages by apt when root; ARGS=FILE for some)
	$(STEP) 'running the tests'
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(CORES) $(ARGS)

oldest: peers ## a selection of tests with the oldest dependencies that pyproject.toml allows (two minutes)
	$(MAKE) VENV=$(OLDEST) $(OLDEST)/installed-oldest
	$(STEP) 'running tests with the oldest dependencies'
	FASTOCI_MEMBER_ENDS=all $(OLDEST)/bin/python -m pytest $(CORES) $(OLDEST_TESTS) $(ARGS)

check: dev ## formatting, lint, types, stub, floors, docs and the names of changelog fragments
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src tests benchmarks examples
	$(BIN)/python -m mypy.stubtest fastoci._core fastoci._inflate fastoci._extract fastoci._erofs fastoci._mount --allowlist tests/stubtest-allowlist.txt
	$(BIN)/towncrier build --draft >/dev/null
	$(BIN)/python -m pytest -q tests/test_floors.py tests/test_layout.py tests/test_docs.py tests/test_project.py
	$(MAKE) -C src/fastoci/csrc/tests test CFLAGS='-O2 -Wall -Wextra -Werror'

dev: $(VENV)/created ## an editable install with the developer's tools
	$(BIN)/pip install --quiet --editable '.[test,dev]'
	rm -f $(VENV)/installed $(VENV)/installed-test

docs: dev ## whether all that the pages link to, name and quote exists
	$(BIN)/python -m pytest -q tests/test_docs.py

cover: dev peers ## the tests, and which lines of Python they do not reach
	$(BIN)/python -m pytest --cov=fastoci --cov-report=term-missing:skip-covered $(CORES) $(ARGS)

changelog: dev ## what the fragments of changelog.d will say in CHANGELOG.md
	@$(BIN)/towncrier build --draft

changelog-build: dev ## collect the fragments into CHANGELOG.md under the version of pyproject.toml, and delete them
	$(BIN)/towncrier build --yes

attacks: $(VENV)/installed-test ## what attackers did once, as root and as nobody (three minutes)
	$(STEP) 'attacks, as this user'
	$(BIN)/python -m pytest -m attack $(ARGS)
	@nobody='setpriv --reuid nobody --regid nogroup --clear-groups'; \
	if [ "$$(id -u)" != 0 ]; then exit 0; fi; \
	if ! $$nobody env $(BIN)/python -c '' 2>/dev/null; then \
	  echo 'not as nobody, who reaches not this folder or not this Python: PYTHON=/usr/bin/python3 VENV=.venv-debian may do'; exit 0; fi; \
	printf '\n== attacks, as nobody\n'; rm -rf /tmp/fastoci-attacks; \
	$$nobody env HOME=/nonexistent HYPOTHESIS_STORAGE_DIRECTORY=/tmp/fastoci-attacks-examples PYTHONDONTWRITEBYTECODE=1 \
	  $(BIN)/python -m pytest -m attack -p no:cacheprovider --basetemp=/tmp/fastoci-attacks $(ARGS)

cancel: $(VENV)/installed-test ## 10,000 pulls cancelled at random instants (some minutes)
	FASTOCI_CANCELS=10000 $(BIN)/python -m pytest -s tests/adversity/test_cancel.py $(ARGS)

hangs: $(VENV)/installed-test ## every await of the engine goes wrong, beside another pull (an hour; FASTOCI_HANGS=500 for some)
	FASTOCI_HANGS=$(or $(FASTOCI_HANGS),0) $(BIN)/python -m pytest -s tests/adversity/test_hangs.py $(ARGS)

gc-storm: $(VENV)/installed-test ## 32 pullers beside 4 collectors, 10^5 operations with random kills (some minutes)
	FASTOCI_GC_OPERATIONS=100000 $(BIN)/python -m pytest -s -o timeout=3000 tests/adversity/test_gc.py $(ARGS)

containerd-storm: $(VENV)/installed-test peers ## 10,000 blobs recorded beside the gc of a containerd, and kills at every call to it (some minutes, as root)
	FASTOCI_CONTAINERD_ROUNDS=10000 FASTOCI_CONTAINERD_KILLS=0 $(BIN)/python -m pytest -s -o timeout=3000 tests/adversity/test_containerd.py $(ARGS)

kills: $(VENV)/installed-test peers ## kills and errors at every system call of pulls and gc, full disks (an hour, as root)
	FASTOCI_KILL_POINTS=0 FASTOCI_KILL_INSTANTS=500 FASTOCI_ERROR_POINTS=0 FASTOCI_FULL_LEVELS=50 $(BIN)/python -m pytest -s \
	  -o timeout=6000 tests/adversity/test_kills.py tests/adversity/test_disk_errors.py tests/adversity/test_full_disk.py \
	  tests/store/layers/test_crash.py $(ARGS)

rootfs-kills: $(VENV)/installed-test peers ## 200 kills of `pull --rootfs` at random instants, for each way of making a tree (ten minutes)
	FASTOCI_ROOTFS_KILLS=200 $(BIN)/python -m pytest -s -o timeout=6000 tests/adversity/test_kills.py -k right_tree $(ARGS)

faults: $(VENV)/installed-test ## fastoci over the whole table of registry faults, http and TLS (ten minutes; CMD= for another puller)
	@status=0; for tls in '' --tls; do \
	  $(BIN)/python -m fastoci.testing.faults $$tls --cmd "$(CMD)" $(ARGS) || status=1; done; exit $$status

fault-plans: $(VENV)/installed-test ## 1,000 random fault plans in one process (some minutes)
	FASTOCI_PLANS=1000 $(BIN)/python -m pytest -s tests/adversity/test_faults.py $(ARGS)

stacks: $(VENV)/installed-test ## 50,000 random stacks of layers against a model in plain Python (a quarter of an hour)
	FASTOCI_STACKS=50000 $(BIN)/python -m pytest -o timeout=6000 tests/unpack/test_layer_model.py $(ARGS)

erofs-exam: $(VENV)/installed-test peers ## layer files and merged metadata of all images and hostile layers of ../shared, mounted; 5,000 stacks (a quarter of an hour, as root)
	FASTOCI_EROFS_EXAM=all FASTOCI_STACKS=5000 $(BIN)/python -m pytest -o timeout=6000 tests/unpack/test_erofs_exam.py $(ARGS)

differ-exam: $(VENV)/installed-test ## containerd 2 of PATH with the differ: all images of ../shared against walking and listings (some minutes, as root)
	FASTOCI_DIFFER_EXAM=all $(BIN)/python -m pytest -s -o timeout=1500 tests/interop/test_differ.py $(ARGS)

storm: $(VENV)/installed-test ## 3,000 pulls, gcs, verifies and repairs on one store, stopped and killed, while blobs rot (half an hour)
	FASTOCI_STORM=3000 $(BIN)/python -m pytest -s tests/adversity/test_storm.py $(ARGS)

every: $(VENV)/installed-test ## a day of `prefetch --every` with a run a minute and lists that change, time scaled (some minutes)
	FASTOCI_EVERY_RUNS=1440 $(BIN)/python -m pytest -s -o timeout=3000 tests/system/test_every.py $(ARGS)

power-cuts: $(VENV)/installed-test peers ## 2,000 power cuts for each level of durability (15 minutes)
	FASTOCI_CUTS=2000 $(BIN)/python -m pytest -s tests/adversity/test_power_cut.py $(ARGS)

crowd: $(VENV)/installed-test ## 64 processes that pull one image, 8 that pull 30 images that share layers (some minutes)
	FASTOCI_CROWD=1 $(BIN)/python -m pytest tests/adversity/test_crowd.py $(ARGS)

pulp: $(VENV)/installed-test ## pulls from Pulp's registry, installed from PyPI (needs PostgreSQL; some minutes)
	$(PYTHON) -m venv build/pulp
	build/pulp/bin/pip install --quiet pulp-container
	FASTOCI_PULP=$(abspath build/pulp)/bin $(BIN)/python -m pytest -s tests/interop/test_pulp.py $(ARGS)

pack-tree: $(VENV)/installed-test peers ## TREE (this machine's /usr/lib) packed, and unpacked by all tools, as root (some minutes, in memory)
	FASTOCI_PACK_TREE=$(or $(TREE),/usr/lib) $(BIN)/python -m pytest -o timeout=6000 tests/interop/test_packed.py $(ARGS)

field: $(VENV)/installed-test peers ## all cases of ../shared/corpora/field, as root (a quarter of an hour)
	FASTOCI_FIELD=all $(BIN)/python -m pytest tests/interop/test_field_cases.py $(ARGS)

hostile: $(VENV)/installed-test ## all hostile layers of ../shared, as root (some minutes)
	FASTOCI_HOSTILE=all $(BIN)/python -m pytest tests/interop/test_hostile.py $(ARGS)

asan: peers ## the tests but those of benchmarks, and the C unit tests, under the address and undefined-behaviour sanitizers
	$(MAKE) -C src/fastoci/csrc/tests asan BUILD=$(abspath $(ASAN))/csrc
	$(MAKE) VENV=$(ASAN) $(ASAN)/installed-sanitized
	$(STEP) 'running the tests under the sanitizers'
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(ASAN)/bin/python -m pytest -o timeout=900 --ignore=tests/benchmarks $(CORES) $(ARGS)

# Fixed addresses: ThreadSanitizer refuses what newer kernels' random ones can be. Python itself is not instrumented, but
# its locks are seen, so what the GIL guards is no race.
TSAN_TESTS = tests/transfer tests/jobs tests/test_engine.py tests/unpack tests/stream tests/test_core.py tests/test_inflate.py \
  tests/test_sha256.py
tsan: ## the C unit tests, and the tests of pipelines, unpacking and hashing, under ThreadSanitizer
	$(MAKE) -C src/fastoci/csrc/tests tsan BUILD=$(abspath $(TSAN))/csrc
	$(MAKE) VENV=$(TSAN) SANITIZE='-O1 -g -fno-omit-frame-pointer -fsanitize=thread' $(TSAN)/installed-sanitized
	$(STEP) 'running the tests under ThreadSanitizer'
	rm -f $(TSAN)/race.*
	@LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" TSAN_OPTIONS=log_path=$(abspath $(TSAN))/race \
	  setarch -R $(TSAN)/bin/python -m pytest -o timeout=900 $(TSAN_TESTS) $(ARGS); status=$$?; \
	cat $(TSAN)/race.* 2>/dev/null && exit 1; exit $$status

fuzz: ## the C core's fuzz targets, FUZZ_SECONDS=600 each (needs clang and libclang-rt-dev)
	$(MAKE) -C src/fastoci/csrc/tests fuzz BUILD=$(abspath build)/fuzz

arm: ## the C unit tests on an emulated 64-bit ARM (needs gcc-aarch64-linux-gnu and qemu-user)
	$(MAKE) -C src/fastoci/csrc/tests arm

bench: $(VENV)/installed-test ## whole pulls beside skopeo, umoci, curl and igzip (about ten minutes)
	$(BIN)/python benchmarks/macro/pull.py $(ARGS)

memory: $(VENV)/installed-test ## peak memory of a pull of one layer of 1 GB
	$(BIN)/python benchmarks/macro/memory.py

startup: $(VENV)/installed-test ## what importing fastoci and `fastoci --help` cost
	$(BIN)/python benchmarks/micro/startup.py

package: $(VENV)/created ## sdist and wheel into dist/
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

peers:
	@missing=''; for package in $(PEERS); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
	  printf '\n== installing Debian packages:%s\n' "$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else \
	  printf '\nSome tests will be skipped. For all of them: sudo apt-get install%s\n' "$$missing"; \
	fi

$(VENV)/created:
	$(STEP) 'making a virtual environment in $(VENV)'
	@$(PYTHON) -c 'import ensurepip, os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null \
	  || if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv python3-dev >/dev/null; \
	     else echo 'First: sudo apt-get install python3-venv python3-dev'; exit 1; fi
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml setup.py $(SOURCES)
	$(STEP) 'building and installing fastoci (half a minute)'
	$(BIN)/pip install --quiet --disable-pip-version-check .
	@touch $@

$(VENV)/installed-test: $(VENV)/created pyproject.toml setup.py $(SOURCES)
	$(STEP) 'building and installing fastoci and what its tests need (a minute)'
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	@touch $@ $(VENV)/installed

$(OLDEST)/installed-oldest: $(OLDEST)/created pyproject.toml setup.py $(SOURCES)
	$(STEP) 'building and installing fastoci with the oldest dependencies (a minute)'
	sed -n '/^\(dependencies\|trust\) = /,/^]/s/^ *"\(.*\)>=\(.*\)",$$/\1==\2/p' pyproject.toml > $(OLDEST)/constraints
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints '.[test]'
	@touch $@

# A copy of the sources: setuptools would take another build's extension for its own.
$(VENV)/installed-sanitized: $(VENV)/created pyproject.toml setup.py $(SOURCES)
	$(STEP) 'building and installing fastoci for the sanitizers (a minute)'
	rm -rf $(VENV)/source && mkdir $(VENV)/source
	tar -c --exclude='*.so' --exclude='src/fastoci/_*.c' pyproject.toml setup.py README.md LICENSE MANIFEST.in src | tar -x -C $(VENV)/source
	CFLAGS='$(SANITIZE)' $(VENV)/bin/pip install --quiet --disable-pip-version-check '$(VENV)/source[test]'
	@touch $@

clean: ## remove everything that was built
	rm -rf build dist .coverage* $(VENV) src/*.egg-info src/fastoci/_*.so src/fastoci/_*.c
