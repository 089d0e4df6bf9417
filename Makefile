# The commands of this project. `make` alone lists them.
#
# Everything is built into target/ (or $CARGO_TARGET_DIR). Nothing outside the project
# changes, except that `make test` as root installs missing Debian packages.
#
# A suite of tests is `make test-NAME`; tests/README.md has their table. TARGET is one line
# of cross/targets.tsv, or `all`.

export ADDR ?=
export TARGET ?=
export VERSION ?=
export MINUTES ?= 15
export REQUESTS ?= 1000000
export SEED ?=
SECONDS ?= 60
SEEDS ?= 100000
BENCH ?=
LONG ?=
TINY ?=

fuzz = cargo run --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz
nextest := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
# $(call run,ARGUMENTS): tests of the package, by cargo-nextest where it is installed.
run = $(if $(nextest),cargo nextest run,cargo test) --locked --all-features $(1)

.PHONY: help demo test check lint soak bench bench-net size cross dist release fuzz clean page prepare \
	test-unit test-e2e test-cli test-alloc test-sim test-fuzz test-page test-interop test-http1 \
	test-net test-soak test-faults test-bare test-init test-init-boot test-vm test-packages test-release test-deny test-cross test-cross-tool test-fresh \
	test-docs

help:
	@echo 'make demo [ADDR=8080]    a service on a URL, through an edge on this machine'
	@echo 'make check               format, clippy, unit tests: after each change'
	@echo 'make lint                all checks of make test without its tests'
	@echo 'make test                all tests; CI=1 adds interop, mips, vm, service managers, sizes'
	@echo 'make test-NAME           one suite; tests/README.md has what each needs and takes'
	@echo '  unit e2e cli alloc     the programs and the library on this machine'
	@echo '  fuzz sim               seeded fuzzing; the muxer simulator (SEEDS=100000)'
	@echo '  page interop http1     the web page in a browser; official SDKs; other HTTP parsers'
	@echo '  docs                   links and examples of the documents, the tour of README.md'
	@echo '  soak                   20,000 requests of make soak (SEED=...)'
	@echo '  net faults bare        failing networks, system calls (LONG=1), sparse machines'
	@echo '  init init-boot fresh   init scripts; systemd and OpenRC as process 1; a fresh Debian'
	@echo '  packages               .tar.gz, .ipk, .deb and .apk; the scripts of cross builds'
	@echo '  release deny           two builds of a release are equal (TARGET=...); licences'
	@echo '  cross vm               foreign builds by qemu-user and qemu-system (TARGET=...)'
	@echo '  cross-tool             builds of the cross tool, with podman (TARGET=...)'
	@echo 'make release VERSION=... KEY=FILE   packages, image, SBOM, checksums, signed feed'
	@echo 'make fuzz [SECONDS=60]   each fuzz target for that long'
	@echo 'make soak [MINUTES=15]   1,000,000 requests with faults and restarts: no byte wrong or missing'
	@echo 'make bench               speed and memory beside ssh -R; BENCH=--check has limits'
	@echo 'make bench-net           faults of the network beside ssh -R, into docs/reference/faults.md'
	@echo 'make size [TARGET=...]   bytes and memory against the budgets'
	@echo 'make cross TARGET=...    a static release build; TINY=1 without features'
	@echo 'make dist TARGET=...     its packages'
	@echo 'make page, prepare       page.html.gz from its sources; what the tests need'
	@echo 'make clean               removes what was built'
	@echo
	@echo 'TARGET: `make cross` lists them; all'

demo:
	@sh tests/demo.sh "$$ADDR"

test:
	@sh tests/all.sh

lint:
	@sh tests/all.sh --lints

check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets --all-features -- -D warnings
	$(call run,--lib --test source_rules)

bench:
	@sh tests/bench/run.sh $(BENCH)

soak:
	@sh tests/soak/run.sh

bench-net:
	@sh tests/system/net/table.sh

size:
	@sh cross/size.sh $$TARGET

cross:
	@sh cross/build.sh $(if $(TINY),--tiny) "$${TARGET:-list}"

dist:
	@sh cross/dist.sh "$${TARGET:-list}"

release:
	@sh cross/release.sh "$$VERSION" "$${TARGET:-all}"

fuzz:
	$(fuzz) -- --seconds $(SECONDS)

page:
	@sh src/web/page/assemble.sh

prepare:
	@sh tests/prepare.sh --for test

clean:
	cargo clean
	rm -rf target

# --- suites ---------------------------------------------------------------------

test-unit:
	$(call run,--lib --bins --test source_rules)

test-e2e:
	$(call run,--test e2e)

test-cli:
	$(call run,--test cli)

test-alloc:
	$(call run,--test alloc)

test-sim:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 CULVERT_SIM_SEEDS=$(SEEDS) \
		cargo test --features fault-injection --lib --target-dir target/sim mux::sim -- --nocapture

test-fuzz:
	cargo test --locked --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz

test-page:
	@sh tests/page/run.sh

test-interop:
	@sh tests/interop/run.sh

test-http1:
	@sh tests/interop/http1/run.sh

test-docs:
	@sh tests/docs/run.sh

test-soak:
	@sh tests/soak/run.sh --short

test-net:
	@sh tests/system/net/run.sh $(if $(LONG),--long)

test-faults:
	@sh tests/system/faults/run.sh $(if $(LONG),--long)

test-bare:
	@sh tests/system/bare/run.sh

test-init:
	@sh tests/system/init/run.sh

test-init-boot:
	@sh tests/system/init/boot.sh systemd
	@sh tests/system/init/boot.sh openrc

test-vm:
	@sh tests/system/vm/run.sh $$TARGET

test-packages:
	@sh tests/system/packages/run.sh
	@sh tests/system/packages/cross.sh

test-release:
	@sh tests/system/packages/release.sh --build $$TARGET

test-deny:
	@sh tests/deny.sh

test-cross:
	@sh cross/test.sh "$${TARGET:-list}"

test-cross-tool:
	@sh tests/system/cross-tool/run.sh $$TARGET

test-fresh:
	@sh tests/fresh.sh
