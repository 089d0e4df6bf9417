#!/bin/sh
# Cargo's configuration for every target of targets.tsv, on standard output, and the
# compilers that it names, in DIRECTORY.
#
# usage: config.sh CROSS ZIG DIRECTORY
# CROSS has targets.tsv, compiler.sh, no-unwind.c, memmove.c
set -eu
cross=$1 zig=$2 dir=$3
tab=$(printf '\t')

echo '# Made by cross/container/config.sh.'
settings=
while IFS=$tab read -r triple zigtarget zigoptions rustoptions _; do
	case $triple in '#'* | '') continue ;; esac
	[ "$zigoptions" != - ] || zigoptions=
	[ "$rustoptions" != - ] || rustoptions=
	sh "$cross/compiler.sh" "$dir/$triple" "$zig" "$zigtarget" "$zigoptions" \
		"$cross/no-unwind.c $cross/memmove.c"
	echo
	echo "[target.$triple]"
	echo "linker = \"$dir/$triple/cc\""
	printf 'rustflags = "-C target-feature=+crt-static -C link-self-contained=no'
	printf ' -A linker_messages -C force-unwind-tables=no%s"\n' "${rustoptions:+ $rustoptions}"
	lower=$(echo "$triple" | tr - _)
	settings="$settings
CC_$lower = \"$dir/$triple/cc\"
AR_$lower = \"$dir/$triple/ar\"
CFLAGS_$lower = \"-ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables\""
done <"$cross/targets.tsv"
echo
echo "[env]$settings"
