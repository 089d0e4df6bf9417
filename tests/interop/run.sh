#!/bin/sh
# make test-interop: the official SDKs from PyPI, npm and crates.io and ngrok's agent 2.3, with
# fixed versions, as clients of culvert-edge; ngrok's API client at its REST API; the wrappers of
# ngrok's agent with ours; Vite behind both programs; logins at an OpenID provider, with Chromium
# if it is installed. They are installed below target/ and use loopback only: in a network
# namespace without another interface, if the kernel permits one.
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
# installed NAME FILE: the npm packages of FILE in $work/NAME. Without scripts: the wrapper's
# downloads an agent.
installed() {
	if ! cmp -s "$2" "$work/$1/installed"; then
		echo "installing the npm packages of $1"
		rm -rf "${work:?}/$1"
		mkdir -p "$work/$1"
		cp "$2" "$work/$1/"
		(cd "$work/$1" && npm install --silent --no-package-lock --ignore-scripts --no-audit --no-fund)
		cp "$2" "$work/$1/installed"
	fi
}
# Its package is imported by the same name as the SDK.
if ! cmp -s "$here/rest/requirements.txt" "$work/rest/installed"; then
	echo "installing the API client"
	rm -rf "$work/rest"
	$python -m venv "$work/rest"
	"$work/rest/bin/pip" install --quiet --disable-pip-version-check -r "$here/rest/requirements.txt"
	cp "$here/rest/requirements.txt" "$work/rest/installed"
fi
installed node "$here/package.json"
installed wrapper "$here/wrapper/package.json"
installed vite "$here/vite/package.json"
installed oidc "$here/oidc/package.json"
agent2=
if [ "$(uname -m)" = x86_64 ]; then
	installed agent2 "$here/agent2/package.json"
	agent2=agent2=$work/agent2/node_modules/@expo/ngrok-bin-linux-x64/ngrok
else
	echo "ngrok's agent 2.3 is left out: its package is for x86_64" >&2
fi
cargo build --quiet --locked --features edge --bin culvert --bin culvert-edge
# The Rust SDK with its 190 packages: about a minute on two processors.
cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$work/rust"

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
	"node=node $here/client.mjs $work/node/" \
	"rust=$work/rust/debug/culvert-interop-client" || status=1
# shellcheck disable=SC2086 # $alone is two words or none, $agent2 one or none
$alone "$work/venv/bin/python" "$here/programs.py" "$target/debug/culvert-edge" "$target/debug/culvert" \
	"vite=$work/vite/node_modules/vite/bin/vite.js" $agent2 || status=1
# shellcheck disable=SC2086 # $alone is two words or none
$alone "$work/rest/bin/python" "$here/rest/drive.py" "$target/debug/culvert-edge" \
	"$target/debug/culvert" || status=1
# shellcheck disable=SC2086 # $alone is two words or none
$alone "$work/venv/bin/python" "$here/oidc/drive.py" "$target/debug/culvert-edge" \
	"$target/debug/culvert" "$work/oidc" || status=1
exit $status
