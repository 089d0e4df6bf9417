#!/bin/sh
# The documents: links, anchors, paths and module names (links.py), the configurations in them
# (examples.py), and the tour of README.md, typed into terminals, with make demo (tour.py). The
# tour uses the default ports, so it has a network namespace of its own.
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

sh tests/prepare.sh --for demo || exit 1
cargo build --quiet --locked --features edge --bins || exit 1
if command -v openssl >/dev/null 2>&1; then
	python3 -B tests/docs/examples.py "${CARGO_TARGET_DIR:-target}/debug" || status=1
else
	skipped "configurations in the documents" "openssl is not installed"
fi

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
# The crates were downloaded above: the namespace has no network.
# shellcheck disable=SC2016 # the inner shell's own
unshare $namespace sh -c 'ip link set lo up && exec env -u CARGO_TARGET_DIR python3 -B tests/docs/tour.py' || status=1
exit $status
