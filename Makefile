# The commands of this project. `make` alone lists them.
#
# Everything is built into target/ (or $CARGO_TARGET_DIR) and nothing outside
# the project is changed, but for the Debian packages that the tests need and
# that `make test` installs when it runs as root.

export ADDR ?=
SECONDS ?= 60
SEEDS ?= 100000
BENCH ?=

.PHONY: help demo test prepare sim fuzz bench interop page size cross clean

help:
	@echo 'make demo                this directory on a URL, through an edge on this machine'
	@echo 'make demo ADDR=8080      the same for a service that already runs'
	@echo 'make test                install what the tests need, run all of them'
	@echo 'make sim SEEDS=100000    long run of the muxer simulator'
	@echo 'make fuzz SECONDS=60     long run of each fuzz target'
	@echo 'make interop             the official SDKs against our edge'
	@echo 'make page                put the web page together after a change of its sources'
	@echo 'make bench               speed and memory beside ssh -R and dbclient -R'
	@echo 'make bench BENCH=--check the same; fails if a figure that must be reached is not'
	@echo 'make size                bytes of the release binary, by feature'
	@echo 'make cross               static release builds, see cross/targets.tsv'
	@echo 'make clean               remove what was built'

demo:
	@sh tests/demo.sh "$$ADDR"

test:
	@sh tests/all.sh

prepare:
	@sh tests/prepare.sh

sim:
	CARGO_PROFILE_DEV_OPT_LEVEL=2 CULVERT_SIM_SEEDS=$(SEEDS) \
		cargo test --features planted-bugs --lib --target-dir target/sim mux::sim -- --nocapture

fuzz:
	cargo run --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz -- --seconds $(SECONDS)

interop:
	@sh tests/interop/run.sh

bench:
	@sh tests/bench/run.sh $(BENCH)

page:
	@sh src/web/page/assemble.sh

size:
	@sh cross/size.sh

cross:
	@sh cross/build.sh all

clean:
	cargo clean
	rm -rf target
