#!/bin/sh
# make test-interop: the official SDKs from PyPI and npm, with fixed versions, as clients of
# culvert-edge. They are installed below target/ and use loopback only: in a network namespace
# without another interface, if the kernel permits one.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
work=$target/interop
here=$PWD/tests/interop
mkdir -p "$work"

sh tests/prepare.sh python3 node npm
python=python3
$python -c 'import ensurepip, venv' 2>/dev/null || python=/usr/bin/python3

if ! cmp -s "$here/requirements.txt" "$work/venv/installed"; then
	echo "installing the Python SDK"
	rm -rf "$work/venv"
	$python -m venv "$work/venv"
	"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$work/venv/installed"
fi
if ! cmp -s "$here/package.json" "$work/node/installed"; then
	echo "installing the Node SDK"
	rm -rf "$work/node"
	mkdir -p "$work/node"
	cp "$here/package.json" "$work/node/"
	(cd "$work/node" && npm install --silent --no-package-lock --ignore-scripts --no-audit --no-fund)
	cp "$here/package.json" "$work/node/installed"
fi
if ! cmp -s "$here/wrapper/package.json" "$work/wrapper/installed"; then
	echo "installing the npm wrapper"
	rm -rf "$work/wrapper"
	mkdir -p "$work/wrapper"
	cp "$here/wrapper/package.json" "$work/wrapper/"
	# Without its script it downloads no agent; it gets ours.
	(cd "$work/wrapper" && npm install --silent --no-package-lock --ignore-scripts --no-audit --no-fund)
	cp "$here/wrapper/package.json" "$work/wrapper/installed"
fi
cargo build --quiet --locked --features edge --bin culvert --bin culvert-edge

alone=
if unshare -rn true 2>/dev/null; then
	alone="unshare -rn"
else
	echo "no network namespace of our own here; the sockets are checked all the same"
fi
export PYTHONPATH="$PWD/tests/support" PYTHONDONTWRITEBYTECODE=1
status=0
# shellcheck disable=SC2086 # $alone is two words or none
$alone "$work/venv/bin/python" "$here/wrappers.py" "$target/debug/culvert-edge" "$target/debug/culvert" \
	"pyngrok=$work/venv/bin/python $here/wrapper.py AGENT CONFIG EDGE UPSTREAM" \
	"npm=node $here/wrapper.mjs $work/wrapper DIR CONFIG EDGE UPSTREAM" || status=1
# shellcheck disable=SC2086 # $alone is two words or none
$alone "$work/venv/bin/python" "$here/drive.py" "$target/debug/culvert-edge" \
	"python=$work/venv/bin/python $here/client.py" \
	"node=node $here/client.mjs $work/node/" || status=1
exit $status
