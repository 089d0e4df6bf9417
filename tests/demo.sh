#!/bin/sh
# make demo [ADDR=8080]: an edge in dev mode and an agent, both on this machine, until Ctrl-C.
# Serves the current directory unless ADDR names a service. Plain POSIX sh (dash, BusyBox). It
# leaves no processes and files behind.
set -u
cd "$(dirname "$0")/.." || exit 1

# In a terminal the demo runs in a process group of its own, the terminal's foreground.
# Otherwise Ctrl-C also ends make, which then prints an error and exits with 2.
if [ "${DEMO_GROUP:-}" != own ] && [ -r /proc/$$/stat ]; then
	# pgrp and tpgid follow the name in brackets, the state and the parent.
	fields=$(sed 's/.*) //' /proc/$$/stat)
	# shellcheck disable=SC2086 # fields are words
	set -- "${1:-}" $fields
	group=$4
	foreground=$7
	set -- "$1"
	if [ "$group" = "$foreground" ]; then
		set -m
		DEMO_GROUP=own sh tests/demo.sh "$1"
		exit
	fi
fi

addr=${1:-}
addr=${addr:-file://$PWD}
PATH=$PATH:$HOME/.cargo/bin
parent=$PPID
# A stopped demo would leave its terminal to make.
trap '' TSTP
trap 'echo; echo "stopping"; exit 0' INT

sh tests/prepare.sh --for demo || exit 1

bin=${CARGO_TARGET_DIR:-target}/debug
echo "building culvert and culvert-edge into $bin (the first time takes a minute or two) ..."
cargo build --quiet --locked --features edge --bins || exit 1

dir=$(mktemp -d "${TMPDIR:-/tmp}/culvert-demo.XXXXXX") || exit 1
edge=
agent=

# end PID: ends a child, kills it after 15 s.
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

# failed WHAT: the end of both logs.
failed() {
	echo "make demo: $1:" >&2
	tail -n 5 "$dir/edge.log" "$dir/agent.log" "$dir/agent.err" >&2
	exit 1
}

# until_shown PID FILE PATTERN WHAT: waits up to 20 s for a line of a child.
until_shown() {
	n=0
	while ! grep -q -- "$3" "$2" 2>/dev/null; do
		n=$((n + 1))
		[ $n -le 200 ] || failed "$4"
		kill -0 "$1" 2>/dev/null || failed "$4"
		sleep 0.1
	done
}

# The port 0 lets the kernel choose: any number of demos run side by side.
"$bin/culvert-edge" dev --dir "$dir" --ready-file "$dir/ready.json" \
	--agent-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --https-addr 127.0.0.1:0 \
	--tcp-ports 0 >"$dir/edge.log" 2>&1 </dev/null &
edge=$!
until_shown $edge "$dir/ready.json" . "the edge did not start"

"$bin/culvert" http "$addr" --config "$dir/agent.yml" --log "$dir/agent.log" --log-format logfmt \
	>"$dir/agent.out" 2>"$dir/agent.err" </dev/null &
agent=$!
until_shown $agent "$dir/agent.out" ' -> ' "the agent did not start"

url=$(sed -n 's/ -> .*//p' "$dir/agent.out" | head -n 1)
inspector=$(sed -n 's/.* obj=web addr=\([0-9.:]*\).*/\1/p' "$dir/agent.log" | head -n 1)
echo
grep -- ' -> ' "$dir/agent.out"
[ -z "$inspector" ] || echo "inspector: http://$inspector"
echo
echo "open it in a browser, or: curl $url"
echo "Ctrl-C ends it."

# Short sleeps in the background: a trap runs at once during `wait`. A parent that has
# ended (a closed terminal, a killed make) ends the demo too.
while kill -0 $edge 2>/dev/null && kill -0 $agent 2>/dev/null && kill -0 "$parent" 2>/dev/null; do
	sleep 1 &
	wait $!
done
kill -0 "$parent" 2>/dev/null || exit 0
# Ctrl-C reaches the programs too, and they may end before the trap here runs. A program that a
# signal asked to end has the status 0.
for pid in $edge $agent; do
	kill -0 "$pid" 2>/dev/null || wait "$pid" || failed "one of the two programs ended"
done
echo "stopping"
