#!/bin/sh
# All tests, one announced step after the other. A step that fails does not
# hide those behind it; the last lines report what failed and what was skipped, with reasons.
# CI=1 adds the official SDKs (make test-interop) from PyPI, npm and crates.io, a big-endian
# 32-bit build under qemu, a small machine with a kernel of its own, and the budgets of sizes
# and memory.
# `--lints` stops before the first test, with the same last lines.
# It also fails for a skipped test that skips.txt does not excuse (so does FAIL_ON_SKIP=1).
#
# Lints are denied for the toolchain that .ci/rust-version names. Another one knows other
# lints: they only warn.
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
: >"$work/skipped"
CULVERT_TEST_SKIPS=$work/skipped
export CULVERT_TEST_SKIPS
. tests/skips.sh
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
	ignored "$work/output"
	took=$(($(date +%s) - step_started))
	if [ "$status" = 0 ]; then
		echo "--- $name: ok, ${took}s"
	else
		[ "$status" != 124 ] || echo "stopped: longer than 900 s"
		echo "--- $name: FAILED (exit $status), ${took}s"
		echo "$name" >>"$work/failed"
	fi
}

# "passed failed" of each summary line of cargo test, cargo nextest or a script here.
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

# Tests that the runner itself leaves out: #[ignore], or a filter.
ignored() {
	sed -n -e 's/^test result: .*; \([1-9][0-9]*\) ignored;.*/\1/p' \
		-e 's/^ *Summary \[.*, \([1-9][0-9]*\) skipped$/\1/p' "$1" |
		while read -r n; do
			skipped "$name" "$n ignored by the test runner"
		done
}

# lint NAME COMMAND...: a step for the toolchain of CI; with another one it only warns.
lint() {
	if [ "$rust" = "$ci_rust" ]; then
		step "$@"
	else
		name=$1
		shift
		echo
		echo "==> $name (warnings only)"
		timeout --foreground -k 10 900 "$@" </dev/null 2>&1 || echo "--- $name: warnings (exit $?)"
	fi
}

# with_ci NAME COMMAND...: a step of CI only.
with_ci() {
	if [ -n "${CI:-}" ]; then
		step "$@"
	else
		skipped "$1" "only with CI=1" >/dev/null
	fi
}

step "what the tests need" sh tests/prepare.sh --for test
cargo --version >/dev/null 2>&1 || exit 1
rust=$(rustc --version | cut -d' ' -f2)
ci_rust=$(cat .ci/rust-version)
deny=
if [ "$rust" = "$ci_rust" ]; then
	deny="-D warnings"
	toolchain="$(rustc --version), which CI names: lints are denied"
else
	toolchain="$(rustc --version); CI names $ci_rust: lints only warn"
	skipped "lints are denied" "this is Rust $rust, CI names $ci_rust" >/dev/null
fi
echo
echo "toolchain: $toolchain"
step "packages on a fresh Debian" sh tests/needs.sh
step "list of skipped tests" sh tests/skips-test.sh
step "oldest Rust that the packages allow" sh tests/msrv.sh

lint "format" cargo fmt --all --check
for package in tests/*/Cargo.toml tests/*/*/Cargo.toml; do
	[ -e "$package" ] && lint "format: $package" cargo fmt --manifest-path "$package" --check
done
# shellcheck disable=SC2086 # $deny is two words or none
lint "clippy, all features" cargo clippy --locked --all-targets --all-features -- $deny
# shellcheck disable=SC2086 # $deny is two words or none
lint "clippy, default features" cargo clippy --locked --all-targets -- $deny
# shellcheck disable=SC2086 # $deny is two words or none
lint "clippy, no features" cargo clippy --locked --all-targets --no-default-features -- $deny
# The SDK's client has 100 packages, which CI=1 builds for its suite anyway.
for package in fuzz bench soak system/net ${CI:+interop/rust}; do
	# shellcheck disable=SC2086 # $deny is two words or none
	lint "clippy: $package" cargo clippy --locked --all-targets --manifest-path tests/$package/Cargo.toml \
		--target-dir "$target/${package##*/}" -- $deny
done
step "shell scripts" sh tests/shellcheck.sh
step "documents" sh tests/docs/run.sh
lint "documentation" env RUSTDOCFLAGS="$deny" cargo doc --locked --no-deps --all-features

tests() {
	if cargo nextest --version >/dev/null 2>&1; then
		step "tests (unit, simulator 256 x 3,000, injected faults, end to end)" \
			cargo nextest run --locked --all-features --no-fail-fast
		step "unit tests of the tiny build" cargo nextest run --locked --no-default-features --lib --no-fail-fast
		step "documentation tests" cargo test --locked --all-features --doc
	else
		step "tests (unit, simulator 256 x 3,000, injected faults, end to end)" \
			cargo test --locked --all-features --no-fail-fast
		step "unit tests of the tiny build" cargo test --locked --no-default-features --lib --no-fail-fast
	fi

	step "fuzz targets, seeded driver" \
		cargo test --locked --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz"
	step "HTTP/1 beside nginx, Node and Python" sh tests/interop/http1/run.sh
	step "bench programs build and work" \
		cargo test --locked --manifest-path tests/bench/Cargo.toml --target-dir "$target/bench"

	step "soak program builds and works" \
		cargo test --locked --manifest-path tests/soak/Cargo.toml --target-dir "$target/soak"

	step "web page, in a browser" sh tests/page/run.sh
	step "init scripts in a BusyBox root" sh tests/system/init/run.sh
	step "packages" sh tests/system/packages/run.sh
	step "what make release publishes" sh tests/system/packages/release.sh
	step "licences and sources of packages" sh tests/deny.sh
	step "scripts of the cross builds" sh tests/system/packages/cross.sh
	step "what a machine may lack" sh tests/system/bare/run.sh
	step "faults of the machine, by strace" sh tests/system/faults/run.sh
	step "faults of the network, in namespaces" sh tests/system/net/run.sh

	with_ci "official SDKs against our edge" sh tests/interop/run.sh
	with_ci "mips (big-endian, 32-bit) under qemu" sh cross/test.sh mips-unknown-linux-musl
	with_ci "init scripts with the mips build" env EMULATOR="qemu-mips-static -cpu 24Kc" \
		AGENT="$target/cross/mips-unknown-linux-musl/culvert" sh tests/system/init/run.sh
	with_ci "package and unit under systemd" sh tests/system/init/boot.sh systemd
	with_ci "package and script under OpenRC" sh tests/system/init/boot.sh openrc
	with_ci "budgets of sizes and memory: mips, x86_64" \
		sh cross/size.sh --check mips-unknown-linux-musl x86_64-unknown-linux-musl
	with_ci "budgets of sizes: mipsel, and its tiny build" \
		sh cross/size.sh --check mipsel-unknown-linux-musl
	# The time of the build does not count as that of the machine.
	with_ci "mipsel programs" sh cross/build.sh mipsel-unknown-linux-musl --features edge --bins
	with_ci "a mipsel machine with little memory" sh tests/system/vm/run.sh mipsel-unknown-linux-musl
}

[ "${1:-}" = --lints ] || tests

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
if [ -s "$work/skipped" ]; then
	echo "skipped:"
	sort -u "$work/skipped" | sed 's/^/  /'
fi
unexcused "$work/skipped" tests/skips.txt >"$work/unexcused"
if [ -n "${CI:-}${FAIL_ON_SKIP:-}" ] && [ -s "$work/unexcused" ]; then
	echo "skipped without an excuse in tests/skips.txt, which is a failure here:"
	sed 's/^/  /' "$work/unexcused"
	failed=$((failed + $(wc -l <"$work/unexcused")))
fi
echo "toolchain: $toolchain"
echo "$passed passed, $failed failed, $(sort -u "$work/skipped" | wc -l | tr -d ' ') skipped"
[ "$failed" = 0 ]
