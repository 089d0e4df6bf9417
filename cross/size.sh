#!/bin/sh
# make size: bytes of the static release binary, its memory, the budgets of budgets.tsv, and the
# origin of the bytes. Fails if a budget is exceeded, or if the feature edge adds anything to
# the agent.
#
# usage: size.sh              this machine's target, with the cost of each dependency
#        size.sh TARGET ...   the same for others
#        size.sh --check TARGET ...   the budgets only (as in CI)
#        size.sh all          every target of budgets.tsv, and the cost of each feature
set -eu
cd "$(dirname "$0")/.."
. cross/common.sh
here=$(uname -m)-unknown-linux-musl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT

check=
features=
case ${1:-} in
--check)
	check=yes
	shift
	;;
all)
	features=yes
	shift
	# shellcheck disable=SC2046 # a word a target
	set -- $(sed -n "s/^[a-z][a-z]*$tab\([^$tab]*\)$tab.*/\1/p" cross/budgets.tsv | sort -u)
	;;
esac
[ $# -gt 0 ] || set -- "${TARGET:-$here}"
for triple in "$@"; do
	known "$triple"
done
sh tests/prepare.sh xz

bytes() {
	wc -c <"$1" | tr -d ' '
}
packed() {
	xz -9e -c "$1" | wc -c | tr -d ' '
}
line() {
	printf '%-38s %-9s %10s %10s  %s\n' "$@"
}

passed=0
failed=0
# figure TARGET PROFILE NAME VALUE: prints it beside its budget and records an excess.
figure() {
	most=$(sed -n "s/^$2$tab$1$tab$3$tab//p" cross/budgets.tsv)
	if [ -z "$most" ]; then
		line "$1, $2" "$3" "$4" - -
	elif [ "$4" -le "$most" ]; then
		line "$1, $2" "$3" "$4" "$most" ok
		passed=$((passed + 1))
	else
		line "$1, $2" "$3" "$4" "$most" "OVER by $(($4 - most))"
		failed=$((failed + 1))
		echo "$1 $2" >>"$work/over"
	fi
}

# memory TARGET PROFILE PROGRAM: RSS beside an edge, if this machine can run it.
memory() {
	grep -q "^$2$tab$1${tab}idle" cross/budgets.tsv || return 0
	if ! "$3" version >/dev/null 2>&1; then
		echo "this machine cannot run $3: its memory is not measured" >&2
		return 0
	fi
	cargo build --quiet --locked --all-features --bin culvert-edge
	if ! python3 cross/memory.py "$3" "$target/debug/culvert-edge" >"$work/memory"; then
		failed=$((failed + 1))
		return 0
	fi
	figure "$1" "$2" idle "$(($(sed -n 1p "$work/memory") * 1024))"
	figure "$1" "$2" busy "$(($(sed -n 2p "$work/memory") * 1024))"
}

: >"$work/over"
for triple in "$@"; do
	sh cross/build.sh "$triple" >/dev/null || exit
	line "" figure now "at most" ""
	program=$target/cross/$triple/culvert
	figure "$triple" release bytes "$(bytes "$program")"
	figure "$triple" release xz "$(packed "$program")"
	memory "$triple" release "$program"
	if grep -q "^tiny$tab$triple$tab" cross/budgets.tsv; then
		sh cross/build.sh --tiny "$triple" >/dev/null || exit
		program=$target/cross/$triple/tiny/culvert
		figure "$triple" tiny bytes "$(bytes "$program")"
		figure "$triple" tiny xz "$(packed "$program")"
	fi
done

# Origin of the bytes.
sort -u "$work/over" | while read -r triple profile; do
	dir=$target/cross/$triple
	[ "$profile" = release ] || dir=$dir/tiny
	echo
	echo "$triple, $profile, is over its budget; the biggest contributors:"
	python3 cross/elf.py sizes "$dir/culvert.symbols"
done
if [ -z "$check" ] && [ ! -s "$work/over" ]; then
	echo
	echo "where the bytes of $1 come from:"
	python3 cross/elf.py sizes "$target/cross/$1/culvert.symbols"
fi

if [ -z "$check" ]; then
	echo
	program=$target/cross/$1/culvert
	edge=$target/cross/$1/culvert-edge
	plain=$(bytes "$program")
	sh cross/build.sh "$1" --features edge --bin culvert --bin culvert-edge >/dev/null
	with_edge=$(bytes "$program")
	line "$1, culvert-edge" bytes "$(bytes "$edge")" - ""
	line "" xz "$(packed "$edge")" - ""
	line "$1, agent built with the edge" bytes "$with_edge" - ""
	# Cargo's features are part of the compiler's hashes, which changes a few hundred bytes.
	growth=$((with_edge - plain))
	if [ "$growth" -gt 1024 ] || [ "$growth" -lt -1024 ]; then
		echo "the feature edge changes the agent by $growth bytes: nothing of the edge may be in it" >&2
		failed=$((failed + 1))
	fi
fi

if [ -n "$features" ]; then
	echo
	echo "what $1 is smaller by without one feature; what two of them need counts for neither:"
	all=$(sed -n 's/^default = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d '",')
	sh cross/build.sh "$1" >/dev/null
	whole=$(bytes "$program")
	for feature in $all; do
		others=
		for other in $all; do
			[ "$other" = "$feature" ] || others="$others,$other"
		done
		if sh cross/build.sh "$1" --no-default-features --features "${others#,}" --bin culvert >/dev/null; then
			line "$feature" bytes "$((whole - $(bytes "$program")))" - ""
		fi
	done
	sh cross/build.sh "$1" --no-default-features --bin culvert >/dev/null
	line "all of them" bytes "$((whole - $(bytes "$program")))" - ""
	sh cross/build.sh "$1" >/dev/null
fi

echo "size: $passed passed, $failed failed"
[ "$failed" = 0 ]
