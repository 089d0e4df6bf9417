#!/bin/sh
# For the scripts here, which source it from the project's root: directories of builds, and
# targets.tsv.
PATH=$PATH:${HOME:-}/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
tab=$(printf '\t')

targets() {
	sed -n "s/^\([a-z][a-z0-9_-]*\)$tab.*/\1/p" cross/targets.tsv
}

# column TARGET NUMBER: prints a cell of targets.tsv; nothing for -.
column() {
	sed -n "s/^$1$tab//p" cross/targets.tsv | cut -f"$(($2 - 1))" | sed 's/^-$//'
}

# known TARGET: ends the script, with the list, for an unknown target.
known() {
	if ! targets | grep -qxF -e "$1"; then
		echo "$0: target '$1' is unknown; known targets:" >&2
		targets | sed 's/^/  /' >&2
		exit 2
	fi
}

# choose TARGET|all|list: sets $wanted, one word for each target. `list` ends the script.
choose() {
	if [ "$1" = list ]; then
		targets
		exit
	fi
	wanted=$(targets)
	[ "$1" != all ] || return 0
	known "$1"
	# shellcheck disable=SC2034 # read by the others
	wanted=$1
}
