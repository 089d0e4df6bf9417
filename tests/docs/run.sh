#!/bin/sh
# The documents: links, anchors, paths and module names (links.py), and the tour of README.md,
# typed into terminals, with make demo (tour.py). The tour uses the default ports, so it has a
# network namespace of its own.
set -u
cd "$(dirname "$0")/../.." || exit 1
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin

. tests/skips.sh
if ! command -v python3 >/dev/null 2>&1; then
	skipped "documents" "python3 is not installed"
	exit 0
fi
status=0
python3 -B tests/docs/links.py --self-test || status=1
python3 -B tests/docs/links.py || status=1

for program in curl ip make unshare; do
	if ! command -v $program >/dev/null 2>&1; then
		skipped "tour of README.md" "$program is not installed"
		exit $status
	fi
done
namespace=-rn
[ "$(id -u)" != 0 ] || namespace=-n
if ! unshare $namespace ip link set lo up 2>/dev/null; then
	skipped "tour of README.md" "this machine makes no network namespaces"
	exit $status
fi
# Crates are downloaded here: the namespace has no network.
cargo fetch --quiet --locked || exit 1
sh tests/prepare.sh --for demo || exit 1
# shellcheck disable=SC2016 # the inner shell's own
unshare $namespace sh -c 'ip link set lo up && exec env -u CARGO_TARGET_DIR python3 -B tests/docs/tour.py' || status=1
exit $status
