#!/bin/sh
# Coverage-guided runs: libfuzzer.sh TARGET [SECONDS], default 60. Uses the compiler's own
# coverage pass, so only a C++ compiler is needed, without a nightly compiler and cargo-fuzz.
# New inputs are stored below target/libfuzzer; a failing input is named there crash-*.
set -eu
cd "$(dirname "$0")"
name=${1:?"usage: libfuzzer.sh TARGET [SECONDS]"}
seconds=${2:-60}
target=${CARGO_TARGET_DIR:-$PWD/../../target}/libfuzzer
host=$(rustc -vV | sed -n 's/^host: //p')

RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
	cargo build --locked --target "$host" --target-dir "$target" --features libfuzzer --bin "$name"

mkdir -p "$target/corpus/$name"
exec "$target/$host/debug/$name" -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=512 \
	-artifact_prefix="$target/" "$target/corpus/$name" "$PWD/corpus/$name"
