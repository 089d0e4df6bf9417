#!/bin/sh
# All tests, one announced step after the other. A step that fails does not
# hide those behind it; the last lines say what passed and what did not.
# CI=1 adds the official SDKs (make interop), which come from PyPI and npm, a build for
# a big-endian 32-bit machine under qemu, a small machine with a kernel of its own, and the
# budgets of sizes and memory.
set -u
cd "$(dirname "$0")/.." || exit 1

PATH=$PATH:$HOME/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
export PATH
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
export RUST_BACKTRACE="${RUST_BACKTRACE:-1}"
target=${CARGO_TARGET_DIR:-$PWD/target}

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
: >"$work/failed"
: >"$work/counts"
started=$(date +%s)

# step NAME COMMAND...: runs it under a limit, keeps its output for counting.
step() {
	name=$1
	shift
	echo
	echo "==> $name"
	step_started=$(date +%s)
	{
		timeout --foreground -k 10 900 "$@" </dev/null 2>&1
		echo $? >"$work/status"
	} | tee "$work/output"
	status=$(cat "$work/status")
	count "$work/output" >>"$work/counts"
	took=$(($(date +%s) - step_started))
	if [ "$status" = 0 ]; then
		echo "--- $name: ok, ${took}s"
	else
		[ "$status" != 124 ] || echo "stopped: longer than 900 s"
		echo "--- $name: FAILED (exit $status), ${took}s"
		echo "$name" >>"$work/failed"
	fi
}

# "passed failed" of each summary line of cargo test, cargo nextest or a script of ours.
count() {
	sed -n \
		-e 's/^[a-z]*: \([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' \
		-e 's/^test result: .* \([0-9][0-9]*\) passed; \([0-9][0-9]*\) failed;.*/\1 \2/p' \
		-e '/^ *Summary \[/{
			s/.*tests* run: //
			s/^\([0-9][0-9]*\) passed[^,]*/P\1/
			s/.* \([0-9][0-9]*\) failed.*/&F\1/
			s/^P\([0-9]*\).*F\([0-9]*\)$/\1 \2/
			s/^P\([0-9]*\).*/\1 0/
			p
		}' "$1"
}

step "what the tests need" sh tests/prepare.sh --for test
cargo --version >/dev/null 2>&1 || exit 1
step "packages on a fresh Debian" sh tests/needs.sh

step "format" cargo fmt --all --check
for package in tests/*/Cargo.toml tests/*/*/Cargo.toml; do
	[ -e "$package" ] && step "format: $package" cargo fmt --manifest-path "$package" --check
done
step "clippy, all features" cargo clippy --locked --all-targets --all-features -- -D warnings
step "clippy, default features" cargo clippy --locked --all-targets -- -D warnings
step "clippy, no features" cargo clippy --locked --all-targets --no-default-features -- -D warnings
step "shell scripts" sh tests/shellcheck.sh
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features

if cargo nextest --version >/dev/null 2>&1; then
	step "tests (unit, simulator 256 x 3,000, planted bugs, end to end)" \
		cargo nextest run --locked --all-features --no-fail-fast
	step "unit tests of the tiny build" cargo nextest run --locked --no-default-features --lib --no-fail-fast
	step "documentation tests" cargo test --locked --all-features --doc
else
	step "tests (unit, simulator 256 x 3,000, planted bugs, end to end)" \
		cargo test --locked --all-features --no-fail-fast
	step "unit tests of the tiny build" cargo test --locked --no-default-features --lib --no-fail-fast
fi

step "fuzz targets, seeded driver" \
	cargo test --locked --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz"
step "bench programs build and work" \
	cargo test --locked --manifest-path tests/bench/Cargo.toml --target-dir "$target/bench"

step "web page, in a browser" sh tests/page/run.sh
step "init scripts in a BusyBox root" sh tests/system/init/run.sh
step "packages" sh tests/system/packages/run.sh
step "scripts of the cross builds" sh tests/system/packages/cross.sh
step "what a machine may lack" sh tests/system/bare/run.sh
step "faults of the machine, by strace" sh tests/system/faults/run.sh
step "faults of the network, in namespaces" sh tests/system/net/run.sh

if [ -n "${CI:-}" ]; then
	step "official SDKs against our edge" sh tests/interop/run.sh
	step "mips (big-endian, 32-bit) under qemu" sh cross/test.sh mips-unknown-linux-musl
	step "init scripts with the mips build" env EMULATOR="qemu-mips-static -cpu 24Kc" \
		AGENT="$target/cross/mips-unknown-linux-musl/culvert" sh tests/system/init/run.sh
	step "a mipsel machine with little memory" sh tests/system/vm/run.sh mipsel-unknown-linux-musl
	step "package and unit under systemd" sh tests/system/init/boot.sh systemd
	step "package and script under OpenRC" sh tests/system/init/boot.sh openrc
	step "budgets of sizes and memory: mips, x86_64" \
		sh cross/size.sh --check mips-unknown-linux-musl x86_64-unknown-linux-musl
	step "budgets of sizes: mipsel, and its tiny build" \
		sh cross/size.sh --check mipsel-unknown-linux-musl
fi

echo
passed=0
failed=0
while read -r p f; do
	passed=$((passed + p))
	failed=$((failed + f))
done <"$work/counts"
echo "total time: $(($(date +%s) - started)) s"
if [ -s "$work/failed" ]; then
	echo "steps that failed:"
	sed 's/^/  /' "$work/failed"
	# A step can fail without a failed test (a warning, a build): count it.
	[ "$failed" -gt 0 ] || failed=$(wc -l <"$work/failed" | tr -d ' ')
fi
if [ "$passed" = 0 ]; then
	echo "no test ran"
	failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
