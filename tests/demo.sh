#!/bin/sh
# make demo [ADDR=8080]: an edge in dev mode and an agent, both on this machine,
# until Ctrl-C. Serves the current directory unless ADDR names a service.
# Plain POSIX sh (dash, BusyBox): nothing stays behind, neither process nor file.
set -u
cd "$(dirname "$0")/.." || exit 1
addr=${1:-file://$PWD}
PATH=$PATH:$HOME/.cargo/bin
parent=$PPID

sh tests/prepare.sh --for demo || exit 1

echo "building (the first time takes a minute or two) ..."
cargo build --quiet --locked --features edge --bins || exit 1
bin=${CARGO_TARGET_DIR:-target}/debug

dir=$(mktemp -d "${TMPDIR:-/tmp}/culvert-demo.XXXXXX") || exit 1
edge=
agent=

# Asks a child to end, waits up to 15 s, then does not ask any more.
end() {
	[ -n "$1" ] || return 0
	kill -TERM "$1" 2>/dev/null || return 0
	n=0
	while kill -0 "$1" 2>/dev/null; do
		n=$((n + 1))
		if [ "$n" -gt 150 ]; then
			kill -KILL "$1" 2>/dev/null
			break
		fi
		sleep 0.1
	done
	wait "$1" 2>/dev/null
}

cleanup() {
	trap '' INT TERM HUP
	trap - EXIT
	end "$agent"
	end "$edge"
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'echo; echo "stopping"; cleanup; exit 0' INT
trap 'cleanup; exit 0' TERM HUP

# The port 0 lets the kernel choose: any number of demos run side by side.
"$bin/culvert-edge" dev --dir "$dir" --ready-file "$dir/ready.json" \
	--agent-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --https-addr 127.0.0.1:0 \
	--tcp-ports 0 >"$dir/edge.log" 2>&1 </dev/null &
edge=$!

n=0
while [ ! -s "$dir/ready.json" ]; do
	n=$((n + 1))
	if ! kill -0 $edge 2>/dev/null || [ $n -gt 200 ]; then
		echo "the edge did not start:" >&2
		cat "$dir/edge.log" >&2
		exit 1
	fi
	sleep 0.1
done

"$bin/culvert" http "$addr" --config "$dir/agent.yml" \
	>"$dir/agent.out" 2>"$dir/agent.err" </dev/null &
agent=$!

n=0
while ! grep -q -- ' -> ' "$dir/agent.out" 2>/dev/null; do
	n=$((n + 1))
	if ! kill -0 $agent 2>/dev/null || [ $n -gt 200 ]; then
		echo "the agent did not start:" >&2
		cat "$dir/agent.out" "$dir/agent.err" >&2
		exit 1
	fi
	sleep 0.1
done

echo
grep -- ' -> ' "$dir/agent.out"
url=$(sed -n 's/ -> .*//p' "$dir/agent.out" | head -n 1)
echo
echo "open it in a browser, or: curl $url"
echo "Ctrl-C ends it."

# Short sleeps in the background: a trap runs at once during `wait`. A parent
# that vanished (a closed terminal, a killed make) ends the demo too.
while kill -0 $edge 2>/dev/null && kill -0 $agent 2>/dev/null && kill -0 "$parent" 2>/dev/null; do
	sleep 1 &
	wait $!
done
if ! kill -0 "$parent" 2>/dev/null; then
	exit 0
fi
echo "one of the two ended by itself; their last words:" >&2
tail -n 5 "$dir/edge.log" "$dir/agent.err" >&2
exit 1
