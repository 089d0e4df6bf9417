# The commands of this project. `make` alone lists them.
#
# Everything is built into target/ (or $CARGO_TARGET_DIR) and nothing outside
# the project is changed, but for the Debian packages that the tests need and
# that `make test` installs when it runs as root.

export ADDR ?=
SECONDS ?= 60
SEEDS ?= 100000
BENCH ?=

export TARGET ?=

.PHONY: help demo test test-fresh test-net faults faults-machine prepare sim fuzz bench interop page size size-all tiny \
	cross cross-all cross-test cross-test-all dist dist-all init-test init-test-all test-bare vm-test clean

help:
	@echo 'make demo                this directory on a URL, through an edge on this machine'
	@echo 'make demo ADDR=8080      the same for a service that already runs'
	@echo 'make test                install what the tests need, run all of them'
	@echo 'make test-fresh          demo and tests on a fresh Debian, by debootstrap (root)'
	@echo 'make test-net            faults of the network, in namespaces (root)'
	@echo 'make faults              the same beside ssh -R; writes the table of docs/faults.md'
	@echo 'make faults-machine      long sweep of system calls that fail, by strace: half an hour'
	@echo 'make sim SEEDS=100000    long run of the muxer simulator'
	@echo 'make fuzz SECONDS=60     long run of each fuzz target'
	@echo 'make interop             the official SDKs against our edge'
	@echo 'make page                put the web page together after a change of its sources'
	@echo 'make bench               speed and memory beside ssh -R and dbclient -R'
	@echo 'make bench BENCH=--check the same; fails if a figure that must be reached is not'
	@echo 'make size                bytes and memory of the static binary against the budgets'
	@echo 'make size-all            the same for every target that has one, and by feature'
	@echo 'make cross               lists the targets'
	@echo 'make cross TARGET=...    a static release build for one of them'
	@echo 'make cross-all           the same for all'
	@echo 'make tiny TARGET=...     the same without features, and panics say nothing'
	@echo 'make cross-test TARGET=...  builds it and tests it, under qemu-user where it is foreign'
	@echo 'make cross-test-all      the same for all; prints a table'
	@echo 'make dist TARGET=...     .tar.gz, .ipk and .deb of a static build; make dist-all'
	@echo 'make init-test           the init scripts in a BusyBox root (as root)'
	@echo 'make init-test-all       the same, and under systemd and OpenRC as process 1 (Debian)'
	@echo 'make test-bare           machines that lack /proc, HOME, resolvers, ... (as root)'
	@echo 'make vm-test [TARGET=..] small machines of their own, under qemu-system; their memory'
	@echo 'make clean               remove what was built'

demo:
	@sh tests/demo.sh "$$ADDR"

test:
	@sh tests/all.sh

test-fresh:
	@sh tests/fresh.sh

test-net:
	@sh tests/system/net/run.sh

faults:
	@sh tests/system/net/table.sh

faults-machine:
	@sh tests/system/faults/run.sh --long

prepare:
	@sh tests/prepare.sh --for test

sim:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 CULVERT_SIM_SEEDS=$(SEEDS) \
		cargo test --features fault-injection --lib --target-dir target/sim mux::sim -- --nocapture

fuzz:
	cargo run --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz -- --seconds $(SECONDS)

interop:
	@sh tests/interop/run.sh

bench:
	@sh tests/bench/run.sh $(BENCH)

page:
	@sh src/web/page/assemble.sh

size:
	@sh cross/size.sh $$TARGET

size-all:
	@sh cross/size.sh --all

cross:
	@sh cross/build.sh "$${TARGET:-list}"

cross-all:
	@sh cross/build.sh all

tiny:
	@sh cross/build.sh --tiny "$${TARGET:-list}"

cross-test:
	@sh cross/test.sh "$${TARGET:-list}"

cross-test-all:
	@sh cross/test.sh all

dist:
	@sh cross/dist.sh "$${TARGET:-list}"

dist-all:
	@sh cross/dist.sh all

init-test:
	@sh tests/system/init/run.sh

test-bare:
	@sh tests/system/bare/run.sh

init-test-all: init-test
	@sh tests/system/init/boot.sh systemd
	@sh tests/system/init/boot.sh openrc

vm-test:
	@sh tests/system/vm/run.sh $$TARGET

clean:
	cargo clean
	rm -rf target
