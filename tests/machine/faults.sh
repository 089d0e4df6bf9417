#!/bin/sh
# Faults of the machine: system calls of the agent that fail, one at a time, and calls
# that an old kernel lacks. After each the agent must serve again, or have ended at its
# start with a reason; it may never panic and never hang.
#
# usage: faults.sh [--long]     by default a part of it, for `make test`
# Needs strace and the right to trace.
set -u
cd "$(dirname "$0")/../.." || exit 1

target=${CARGO_TARGET_DIR:-$PWD/target}
agent=${CULVERT_AGENT:-$target/debug/culvert}
edge=$target/debug/culvert-edge
long=
[ "${1:-}" != --long ] || long=yes

for program in strace curl python3; do
	command -v $program >/dev/null 2>&1 || {
		echo "skipped: there is no $program"
		exit 0
	}
done
if ! strace -o /dev/null true 2>/dev/null; then
	echo "skipped: tracing is not allowed here"
	exit 0
fi
[ -x "$agent" ] && [ -x "$edge" ] || cargo build --locked --all-features --bins || exit 1

work=$(mktemp -d) || exit 1
children=
finish() {
	# shellcheck disable=SC2086 # one word a process
	[ -z "$children" ] || kill $children 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir "$work/site"
echo served >"$work/site/index.html"
(cd "$work/site" && exec python3 -u -m http.server --bind 127.0.0.1 0) >"$work/upstream" 2>&1 &
children="$children $!"
"$edge" dev --agent-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --https-addr 127.0.0.1:0 \
	--tcp-ports 0 --dir "$work/edge" --ready-file "$work/ready" >"$work/edge.log" 2>&1 &
children="$children $!"

# until LIMIT COMMAND...: repeats it until it succeeds, at most so many tenths of a second.
until_true() {
	tries=$1
	shift
	while [ "$tries" -gt 0 ]; do
		"$@" && return 0
		sleep 0.1
		tries=$((tries - 1))
	done
	return 1
}
until_true 100 test -s "$work/ready" || {
	echo "the edge does not start" >&2
	exit 1
}
until_true 100 grep -q 'port [0-9]' "$work/upstream"
upstream=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/upstream" | head -1)
http=$(sed -n 's/.*"http_addr": *"\([^"]*\)".*/\1/p' "$work/ready")

serves() {
	[ "$(curl -s -m 3 -H "Host: x.localhost" "http://$http/index.html")" = served ]
}
ended() {
	! kill -0 "$pid" 2>/dev/null
}
serves_or_ended() {
	serves || ended
}

passed=0
failed=0
unreached=0
# try INJECT...: the agent with these faults. `must` says what has to come of it.
try() {
	what=$*
	set --
	calls=
	for fault in $what; do
		# What is not traced does not fail either.
		calls=$calls,${fault%%:*}
		set -- "$@" -e "inject=$fault"
	done
	: >"$work/err"
	HOME=$work strace -I 2 -D -f -qq -o "$work/trace" -e "trace=${calls#,}" -e signal=none "$@" \
		"$agent" http "$upstream" --url http://x.localhost --config "$work/edge/agent.yml" \
		--log stderr --log-format logfmt >"$work/out" 2>"$work/err" &
	pid=$!
	problem=
	case $what in
	*when=*)
		# strace counts for each thread, and a session has threads of its own: without
		# an end to it "once" would be once a session, for ever.
		# Soon, since each failure lengthens the wait for the next attempt.
		for _ in 1 2 3 4 5; do
			serves || sleep 0.1
		done
		tracer=$(sed -n 's/^TracerPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
		case $tracer in '' | 0) ;; *) kill -TERM "$tracer" ;; esac
		;;
	esac
	if ! until_true 200 serves_or_ended; then
		problem="it neither serves nor ends"
	elif ended; then
		wait "$pid"
		status=$?
		# A start that fails says why. A signal is a crash.
		if [ $status -gt 128 ]; then
			problem="it died: $status"
		elif [ ! -s "$work/err" ]; then
			problem="it ended ($status) without a word"
		elif [ "$must" = serve ]; then
			problem="it ended ($status): $(tail -1 "$work/err")"
		fi
	else
		# Faults that come later hit these.
		for _ in 1 2 3 4 5 6; do serves; done
		until_true 150 serves || problem="it serves no more"
	fi
	grep -q 'panicked at' "$work/err" && problem="panic: $(grep -A1 'panicked at' "$work/err" | tr '\n' ' ')"
	if ! ended; then
		kill -TERM "$pid"
		until_true 150 ended || {
			problem="${problem:-it does not end when it is told to}"
			kill -KILL "$pid" 2>/dev/null
		}
	fi
	wait "$pid" 2>/dev/null
	if [ -z "$problem" ] && ! grep -q INJECTED "$work/trace"; then
		unreached=$((unreached + 1))
		[ -z "$long" ] || echo "not reached  $what"
		return
	fi
	if [ -n "$problem" ]; then
		failed=$((failed + 1))
		echo "FAILED  $what: $problem"
		[ -z "$long" ] || sed 's/^/    /' "$work/err" | tail -15
	else
		passed=$((passed + 1))
	fi
}

# Each call fails once, the n-th time.
sweep() {
	call=$1
	errors=$2
	shift 2
	for error in $errors; do
		for when in "$@"; do
			try "$call:error=$error:when=$when"
		done
	done
}

must=
if [ -n "$long" ]; then
	set -- 1 2 3 4 5 6 8 10 13 17 22 29 40 60
	sweep recvfrom "EINTR ECONNRESET ENOMEM" "$@"
	sweep recvmsg "EINTR ECONNRESET ENOMEM" "$@"
	sweep sendto "EINTR EPIPE ENOBUFS" "$@"
	sweep sendmsg "EINTR EPIPE ENOBUFS" "$@"
	sweep writev "EINTR EPIPE" "$@"
	sweep read "EINTR EIO ENOMEM" "$@"
	sweep write "EINTR EPIPE ENOSPC EIO" "$@"
	sweep connect "EINTR ECONNREFUSED ENETUNREACH ENOBUFS" 1 2 3 4 5 6
	sweep socket "EMFILE ENFILE ENOBUFS ENOMEM" 1 2 3 4 5 6
	sweep epoll_wait "EINTR ENOMEM" "$@"
	sweep epoll_ctl "ENOMEM ENOSPC" "$@"
	sweep poll "EINTR ENOMEM" "$@"
	sweep eventfd2 "EMFILE ENOMEM" 1 2 3 4
	sweep openat "EMFILE ENOENT EACCES" "$@"
	sweep clone3,clone "EAGAIN ENOMEM" 1 2 3 4 5 6
	sweep mmap "ENOMEM" 30 35 40 45 50 55 60
else
	# No EAGAIN for sockets: it would say that an event follows, and none does.
	# These interrupt a session at work; it must go on, or come back.
	must=serve
	sweep recvfrom "EINTR ECONNRESET" 3 9
	sweep recvmsg "EINTR ECONNRESET" 1
	sweep sendto "EINTR EPIPE" 2 6
	sweep connect "ECONNREFUSED EINTR" 1 2
	sweep epoll_ctl "ENOMEM" 8
	# At the start these may end it, with a reason: the local API cannot listen.
	must=
	sweep socket "EMFILE" 1 2
	sweep epoll_wait "ENOMEM" 4
	sweep openat "EMFILE" 8
	sweep clone3,clone "EAGAIN" 1 2 3
fi

# What kernels of 2.6 to 5.8 lack: always, from the first call on.
must=serve
try clone3:error=ENOSYS
try getrandom:error=ENOSYS
try accept4:error=ENOSYS
try clone3:error=ENOSYS getrandom:error=ENOSYS statx:error=ENOSYS epoll_pwait2:error=ENOSYS \
	timerfd_create:error=ENOSYS prlimit64:error=ENOSYS rseq:error=ENOSYS

# Workers cannot be had for a while: nobody is served, and then somebody is.
try clone3:error=EAGAIN:when=4+

echo "$unreached faults were not reached: the call was not made so often, or not at all"
echo "faults: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -ge 10 ]
