#!/bin/sh
# make test-init: runs the init scripts in a root made of BusyBox, the agent and an edge, in
# their own namespaces: this machine is not changed and no packet leaves it. Needs root; without
# it one line is printed, without a failure.
#
# AGENT=FILE  a static agent, for example target/cross/i686-unknown-linux-musl/culvert. Without
# it the debug build is used, with its libraries. A foreign one runs under
# EMULATOR="qemu-mips-static -cpu 24Kc".
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
. tests/apart.sh
emulator=${EMULATOR:-}
emulator=${emulator%% *}
[ "${1:-}" = inside ] ||
	apart "init scripts" "busybox runsv signify-openbsd $emulator" tests/system/init/run.sh

# --- inside: pid 1 of a pid namespace, a network without a way out ------------
work=$2
bin=$3
agent=${AGENT:-$bin/culvert}
root=$work/root
. tests/checks.sh

mount -t tmpfs none "$work"
mkdir -p "$root/bin" "$root/usr/bin" "$root/etc/init.d" "$root/etc/culvert" "$root/etc/default" \
	"$root/proc" "$root/dev" "$root/run" "$root/var/log" "$root/tmp" "$root/srv/www"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done
ln -sf ../bin "$root/sbin"
ln -sf ../run "$root/var/run"
chmod 1777 "$root/tmp"
mount -t proc none "$root/proc"
for node in null zero random urandom; do
	: >"$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
printf 'root:x:0:0:root:/root:/bin/sh\nculvert:x:555:555:culvert:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nculvert:x:555:\n' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
echo '<h1>through the tunnel</h1>' >"$root/srv/www/index.html"
ip link set lo up 2>/dev/null || ifconfig lo up

# install FILE: copies a program, and the libraries of a dynamic one.
install_program() {
	cp "$1" "$root/usr/bin/"
	ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$root${library%/*}"
		# A running process has it mapped already.
		[ -e "$root$library" ] || cp -L "$library" "$root$library"
	done
}
install_program "$bin/culvert-edge"
if [ -n "${EMULATOR:-}" ]; then
	# A program at the usual path that runs the emulator and shows that path in `ps`, like
	# binfmt_misc (which is a setting of the whole machine).
	install_program "$(command -v "$emulator")"
	mkdir -p "$root/usr/lib/culvert"
	cp "$agent" "$root/usr/lib/culvert/culvert"
	printf '#!/bin/sh\nexec /usr/bin/%s -0 /usr/bin/culvert /usr/lib/culvert/culvert "$@"\n' \
		"$EMULATOR" >"$root/usr/bin/culvert"
	chmod 755 "$root/usr/bin/culvert"
else
	install_program "$agent"
	[ "${agent##*/}" = culvert ] || mv "$root/usr/bin/${agent##*/}" "$root/usr/bin/culvert"
fi
if command -v runsv >/dev/null 2>&1; then
	for program in runsv runsvdir svlogd chpst sv; do
		[ -z "$(command -v $program)" ] || install_program "$(command -v $program)"
	done
fi
cp cross/init/culvert.init "$root/etc/init.d/culvert"
in_root() {
	chroot "$root" /bin/sh -c "$1"
}
init() {
	in_root "/etc/init.d/culvert $1"
}

evidence() {
	in_root 'ps; tail -n 20 /var/log/messages /var/log/culvert.log 2>/dev/null' || true
	ls -l "$root/run" || true
	tail -n 20 "$work/nobody" "$work/procd" "$root/var/log/runit.log" "$root/var/log/edge.log" 2>/dev/null || true
}
agent_pid() {
	cat "$root/run/culvert.agent.pid" 2>/dev/null || echo 0
}
supervisor_pid() {
	cat "$root/run/culvert.pid" 2>/dev/null || echo 0
}
# A zombie has ended.
gone() {
	! grep -q '^State:[^ZX]*$' "/proc/$1/status" 2>/dev/null
}
served() {
	chroot "$root" /bin/busybox wget -q -O - http://router.localhost:4080/ | grep -q 'through the tunnel'
}
not_served() {
	! served
}
value_of() { # pid field
	sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$1/status"
}
supervisors() {
	in_root "ps | grep -c '[/]etc/init.d/culvert run'" || true
}
agents() {
	in_root "ps | grep -c '[/]usr/bin/culvert.* start --all'" || true
}
respawned() { # from pid
	[ "$(agent_pid)" != "$1" ] && served
}

in_root 'syslogd -O /var/log/messages'
in_root 'cd /srv && exec culvert-edge dev --dir /etc/edge >/var/log/edge.log 2>&1 &'
until_ok test -s "$root/etc/edge/agent.yml"
{
	cat "$root/etc/edge/agent.yml"
	printf 'endpoints:\n  - name: web\n    url: http://router.localhost\n    upstream:\n      url: file:///srv/www\n'
} >"$root/etc/culvert/culvert.yml"
chmod 755 "$root/etc/edge"
chmod 600 "$root/etc/culvert/culvert.yml"
chown 555:555 "$root/etc/culvert/culvert.yml"
echo '127.0.0.1 router.localhost more.localhost' >>"$root/etc/hosts"
printf 'RESPAWN=1\nSTOP=12\n' >"$root/etc/default/culvert"

echo "init script, in a BusyBox root, log by syslog:"
check "status before it was ever started" test "$(init status)" = "culvert is not running"
check "start" init start
check "the endpoint answers" until_ok served
check "status" sh -c "chroot '$root' /etc/init.d/culvert status | grep -q 'is running'"
check "it runs as its user" test "$(value_of "$(agent_pid)" Uid)" = 555
check "with no supplementary groups of root" sh -c "! grep -qE '^Groups:.*\b0\b' /proc/$(agent_pid)/status"
check "it can gain no privileges" test "$(value_of "$(agent_pid)" NoNewPrivs)" = 1
check "and leaves no core file" grep -qE '^Max core file size +0 +0' "/proc/$(agent_pid)/limits"
check "the log is in syslog" until_ok grep -q 'culvert.*router.localhost' "$root/var/log/messages"
check "status for others than root" test "$(chroot --userspec=65534:65534 --groups= "$root" \
	/etc/init.d/culvert status)" = "culvert is running (pid $(agent_pid))"
check "they can stop nothing, and are told so" test "$(chroot --userspec=65534:65534 --groups= "$root" \
	/etc/init.d/culvert stop 2>&1 || echo $?)" = "culvert: stop needs root
4"
check "it runs on" served
check "a second start changes nothing" test "$(init start)" = "culvert is running already"
before=$(agent_pid)
printf '  - name: more\n    url: http://more.localhost\n    upstream:\n      url: file:///srv/www\n' >>"$root/etc/culvert/culvert.yml"
check "reload" init reload
check "the endpoint that was added answers" until_ok in_root 'wget -q -O - http://more.localhost:4080/ | grep through'
check "it is the same process" test "$(agent_pid)" = "$before"
echo 'endpoints: [' >>"$root/etc/culvert/culvert.yml"
check "reload of a configuration with a fault fails" test "$(init reload >/dev/null 2>&1 || echo $?)" = 1
check "and changes nothing" served
sed -i '/^endpoints: \[/d' "$root/etc/culvert/culvert.yml"
before=$(agent_pid)
kill -KILL "$before"
check "killed, it comes back" until_ok respawned "$before"
check "and the log says so" grep -q 'culvert has ended (status 137)' "$root/var/log/messages"
before=$(agent_pid) supervisor=$(supervisor_pid)
check "restart" init restart
check "it is another process" until_ok respawned "$before"
check "the old supervisor is gone" until_ok gone "$supervisor"
before=$(agent_pid) supervisor=$(supervisor_pid)
check "stop" init stop
check "the agent is gone" until_ok gone "$before"
check "its supervisor too" until_ok gone "$supervisor"
check "nothing answers" until_ok not_served
check "no pid file is left" sh -c "! ls '$root'/run/culvert* 2>/dev/null"
check "the agent ended with grace" grep -qE 'culvert.*(stop|end|clos)' "$root/var/log/messages"
check "status says so" test "$(init status)" = "culvert is not running"
check "there is nothing to reload" test "$(init reload || echo $?)" = "culvert is not running
7"
check "stop again is no error" init stop
init start >"$work/one" &
one=$!
init start >"$work/other" &
wait $one $!
check "two starts at the same time: one says that it runs already" \
	grep -q 'running already' "$work/one" "$work/other"
check "the endpoint answers" until_ok served
check "and there is one supervisor" test "$(supervisors)" = 1
check "stop" init stop
check "and none is left" test "$(supervisors)" = 0
mkdir "$root/run/culvert.lock"
check "a start that was killed half-way holds the next one up, and no more" init start
check "the endpoint answers" until_ok served
check "stop" init stop

echo "the same with a file as log, and with faults:"
echo 'LOG=/var/log/culvert.log' >>"$root/etc/default/culvert"
sed -i 's/^STOP=.*/STOP=2/' "$root/etc/default/culvert"
check "start" init start
check "the endpoint answers" until_ok served
check "the log is in the file" until_ok grep -q router.localhost "$root/var/log/culvert.log"
before=$(agent_pid)
kill -STOP "$before"
check "an agent that hangs is stopped" init stop
check "it is gone" until_ok gone "$before"
check "start" init start
check "the endpoint answers" until_ok served
before=$(agent_pid)
supervisor=$(supervisor_pid)
kill -KILL "$supervisor"
until_ok gone "$supervisor"
check "start after the supervisor was killed" init start
check "the agent it left behind is gone" until_ok gone "$before"
check "a new one answers" until_ok served
check "stop" init stop
echo 999999 >"$root/run/culvert.pid"
check "a pid file of nobody is no obstacle" init start
check "the endpoint answers" until_ok served
check "stop" init stop
# A process with "culvert" in its command line, which is not culvert.
in_root 'exec tail -f /etc/culvert/culvert.yml >/dev/null 2>&1 &
	echo $! >/run/culvert.pid; echo $! >/run/culvert.agent.pid'
other=$(cat "$root/run/culvert.pid")
check "with the number of another process in the pid files: status" test "$(init status || echo $?)" = \
	"culvert is dead, its pid file is left
1"
check "start" init start
check "the endpoint answers" until_ok served
check "it is another process" test "$(agent_pid)" != "$other"
echo "$other" >"$root/run/culvert.pid"
echo "$other" >"$root/run/culvert.agent.pid"
check "pid files of another process while it runs: a second start changes nothing" \
	test "$(init start)" = "culvert is running already"
check "stop" init stop
check "no supervisor is left" test "$(supervisors)" = 0
check "no agent is left" test "$(agents)" = 0
check "the other process still runs" kill -0 "$other"
kill -TERM "$other"

mount -t tmpfs -o size=16k none "$root/run"
dd if=/dev/zero of="$root/run/full" bs=4k 2>/dev/null || true
check "/run is full" sh -c "! echo x 2>/dev/null >'$root/run/x'"
rm -f "$root/run/x"
check "start with a full /run" init start
check "the endpoint answers" until_ok served
check "a second start changes nothing" test "$(init start)" = "culvert is running already"
check "there is one supervisor" test "$(supervisors)" = 1
check "status" sh -c "chroot '$root' /etc/init.d/culvert status | grep -q 'is running'"
check "a second supervisor ends at once" test "$(init run 2>&1 || echo $?)" = \
	"culvert: another supervisor is running
1"
check "reload" init reload
check "restart" init restart
check "the endpoint answers" until_ok served
check "there is one agent" test "$(agents)" = 1
check "stop" init stop
check "no supervisor is left" test "$(supervisors)" = 0
check "no agent is left" test "$(agents)" = 0
umount "$root/run"

cp "$root/etc/passwd" "$work/passwd"
sed -i '/^culvert/d' "$root/etc/passwd"
check "start without the user is refused" test "$(init start 2>&1 || echo $?)" = \
	"culvert: user culvert is missing; create it, or set USER in /etc/default/culvert
6"
check "no agent runs as root" test "$(agents)" = 0
chroot "$root" /etc/init.d/culvert run &
check "init's supervisor reports it" until_ok grep -q 'user culvert is missing' "$root/var/log/culvert.log"
check "no agent runs as root" test "$(agents)" = 0
cat "$work/passwd" >"$root/etc/passwd"
check "when the user exists, it starts" until_ok served
check "it runs as its user" test "$(value_of "$(agent_pid)" Uid)" = 555
check "stop" init stop
cp "$root/etc/culvert/culvert.yml" "$root/etc/culvert/good"
echo 'endpoints: [' >>"$root/etc/culvert/culvert.yml"
check "start with a fault in the configuration" init start 2>"$work/fault"
check "says where it is" grep -q '/etc/culvert/culvert.yml:[0-9]*:[0-9]*: ' "$work/fault"
check "and what comes of it" grep -q 'cannot start with this configuration' "$work/fault"
check "status says that it is tried again" until_ok sh -c "
	chroot '$root' /etc/init.d/culvert status | grep -q 'about to be started again'"
cat "$root/etc/culvert/good" >"$root/etc/culvert/culvert.yml"
check "mended, it comes up by itself" until_ok served
check "stop" init stop
mv "$root/etc/culvert/culvert.yml" "$root/etc/culvert/away"
check "without a configuration it says which" sh -c "chroot '$root' /etc/init.d/culvert start 2>&1 | grep -q culvert.yml"

echo "without a script, as a user that no file knows, without a home:"
cp "$root/etc/edge/agent.yml" "$root/tmp/nobody.yml"
chown 65534:65534 "$root/tmp/nobody.yml"
chroot --userspec=65534:65534 --groups= "$root" /bin/env -i /usr/bin/culvert http file:///srv/www \
	--url http://router.localhost --config /tmp/nobody.yml --log stderr >"$work/nobody" 2>&1 &
nobody=$!
check "the endpoint answers" until_ok served
check "it is nobody" test "$(value_of $nobody Uid)" = 65534
# A debug build stays open to debuggers.
[ "$agent" = "$bin/culvert" ] ||
	check "whose memory is for nobody else" test "$(stat -c %u /proc/$nobody/environ)" = 0
kill -TERM $nobody || true
nobody_status=0
wait $nobody || nobody_status=$?
check "asked to end it ends with 0" test $nobody_status = 0

# --- OpenWrt's script, with what rc.common and procd would do written down ----
echo "OpenWrt's script, beside a stand-in for procd:"
mkdir -p "$root/var/etc" "$root/lib"
mv "$root/etc/culvert/away" "$root/etc/culvert/culvert.yml"
# Without endpoints.
cp "$root/etc/edge/agent.yml" "$root/etc/culvert/agent.yml"
chown 555:555 "$root/etc/culvert/agent.yml"
cp cross/openwrt/culvert.init "$root/etc/init.d/culvert.procd"
cat >"$root/etc/rc.common" <<'END'
#!/bin/sh
# Replacements of the functions of OpenWrt's rc.common, procd.sh and functions.sh that the
# script uses. The configuration is in variables, and the instance is run with its settings.
config_load() { :; }
config_get() { eval "$1=\${cfg_$2_$3:-$4}"; }
config_get_bool() { eval "$1=\${cfg_$2_$3:-$4}"; }
config_foreach() { for section in $cfg_endpoints; do "$1" "$section"; done; }
procd_open_instance() { parameters=; command=; }
procd_set_param() { parameters="$parameters$*;"; [ "$1" != command ] || { shift; command="$*"; }; }
procd_append_param() { [ "$1" = command ] && shift && command="$command $*"; }
procd_close_instance() { echo "$command" >/tmp/procd.command; echo "$parameters" >/tmp/procd.parameters; }
procd_add_reload_trigger() { :; }
procd_send_signal() { echo "$*" >/tmp/procd.signal; }
start() { start_service; }
script=$1
. "$script"
case $2 in
start) start_service ;;
reload) reload_service ;;
restart) service_stopped && start_service ;;
stop) service_stopped ;;
running) [ -e /tmp/procd.command ] ;;
esac
END
procd() { # settings action
	rm -f "$root/tmp/procd.command" "$root/tmp/procd.signal"
	in_root "$1 sh /etc/rc.common /etc/init.d/culvert.procd ${2:-start}"
}
# Reaction of a running agent: a signal if only endpoints differ; otherwise procd finds the
# watched file changed.
reloaded() { # settings
	before=$(cat "$root/var/etc/culvert.yml")
	procd "$1" reload || return 1
	if [ "$before" = "$(cat "$root/var/etc/culvert.yml")" ]; then
		grep -qx "culvert [*] HUP" "$root/tmp/procd.signal" && told=signal
	else
		[ ! -e "$root/tmp/procd.signal" ] && told=start
	fi
}
check "not enabled, it starts nothing" sh -c "
	chroot '$root' sh /etc/rc.common /etc/init.d/culvert.procd start && ! test -e '$root/tmp/procd.command'"
check "start" procd "cfg_main_enabled=1 cfg_main_config_file=/etc/culvert/agent.yml cfg_main_log_level=debug \
	cfg_endpoints=luci cfg_luci_upstream=file:///srv/www cfg_luci_url=\"http://it's.localhost\""
check "a value with a quote is still one" grep -qF "url: 'http://it''s.localhost'" "$root/var/etc/culvert-endpoints.yml"
for file in culvert culvert-endpoints; do
	check "what it wrote is for its user alone: $file" test "$(stat -c %u:%a "$root/var/etc/$file.yml")" = 555:600
done
check "start" procd "cfg_main_enabled=1 cfg_main_config_file=/etc/culvert/agent.yml cfg_main_log_level=debug \
	cfg_endpoints=luci cfg_luci_upstream=file:///srv/www cfg_luci_url=http://luci.localhost"
for parameter in "user culvert" "no_new_privs 1" "limits core=0 0" "respawn 3600 10 0" "stdout 1" "stderr 1"; do
	check "procd is told: $parameter" grep -qF "$parameter;" "$root/tmp/procd.parameters"
done
echo '127.0.0.1 luci.localhost' >>"$root/etc/hosts"
chroot --userspec=555:555 --groups= "$root" /bin/sh -c "exec $(cat "$root/tmp/procd.command")" >"$work/procd" 2>&1 &
started=$!
check "its endpoint answers" until_ok in_root 'wget -q -O - http://luci.localhost:4080/ | grep through'
options="cfg_main_enabled=1 cfg_main_config_file=/etc/culvert/agent.yml"
told=
check "reload, with another endpoint" reloaded "$options cfg_main_log_level=debug \
	cfg_endpoints='luci more' cfg_luci_upstream=file:///srv/www cfg_luci_url=http://luci.localhost \
	cfg_more_upstream=file:///srv/www cfg_more_url=http://more.localhost"
check "it is told by a signal" test "$told" = signal
kill -HUP $started || true
check "and has the endpoint" until_ok in_root 'wget -q -O - http://more.localhost:4080/ | grep through'
check "reload, with another option" reloaded "$options cfg_main_log_level=info cfg_endpoints=luci \
	cfg_luci_upstream=file:///srv/www cfg_luci_url=http://luci.localhost"
check "it is started again" test "$told" = start
echo '# mine' >>"$root/etc/culvert/agent.yml"
check "reload, with the user's file changed" reloaded "$options cfg_main_log_level=info cfg_endpoints=luci \
	cfg_luci_upstream=file:///srv/www cfg_luci_url=http://luci.localhost"
check "it is started again" test "$told" = start
check "stop" procd "$options" stop
check "leaves no authtoken in RAM" sh -c "! ls '$root'/var/etc/culvert* 2>/dev/null"
kill -TERM $started || true
wait $started || true

# Endpoint sections replace the endpoints of the file.
luci="cfg_main_enabled=1 cfg_luci_upstream=file:///srv/www cfg_luci_url=http://luci.localhost"
check "start, with endpoints in the file too" procd "$luci cfg_main_config_file=/etc/culvert/culvert.yml cfg_endpoints=luci"
chroot --userspec=555:555 --groups= "$root" /bin/sh -c "exec $(cat "$root/tmp/procd.command")" >"$work/procd" 2>&1 &
started=$!
check "the endpoint of the section answers" until_ok in_root 'wget -q -O - http://luci.localhost:4080/ | grep through'
check "the endpoint of the file does not" not_served
kill -TERM $started || true
wait $started || true
check "start, without endpoint sections" procd "$luci cfg_main_config_file=/etc/culvert/culvert.yml"
check "the endpoints of the file are started" grep -q ' start --all ' "$root/tmp/procd.command"
check "stop" procd "$options" stop

# A full /var.
mount -t tmpfs -o size=16k none "$root/var/etc"
check "start" procd "$luci cfg_main_config_file=/etc/culvert/agent.yml cfg_endpoints=luci"
cp "$root/tmp/procd.command" "$work/command"
cp "$root/var/etc/culvert.yml" "$root/var/etc/culvert-endpoints.yml" "$work/"
dd if=/dev/zero of="$root/var/etc/full" bs=4k 2>/dev/null || true
check "reload with a full /var fails" test "$(procd "$luci cfg_main_config_file=/etc/culvert/agent.yml \
	cfg_main_log_level=debug cfg_endpoints='luci more' cfg_more_upstream=80" reload >/dev/null 2>&1 || echo failed)" = failed
for file in culvert culvert-endpoints; do
	check "it keeps the old file: $file" cmp "$root/var/etc/$file.yml" "$work/$file.yml"
	check "and leaves no other one" test ! -e "$root/var/etc/$file.yml.new"
done
check "the agent is not restarted" cmp "$root/tmp/procd.command" "$work/command"
check "and gets no signal" test ! -e "$root/tmp/procd.signal"
rm "$root/var/etc/full"
check "with room again, reload" procd "$luci cfg_main_config_file=/etc/culvert/agent.yml \
	cfg_endpoints='luci more' cfg_more_upstream=80" reload
check "applies the change" grep -q "name: 'more'" "$root/var/etc/culvert-endpoints.yml"
umount "$root/var/etc"

sed -i '/^culvert/d' "$root/etc/passwd"
procd "$luci cfg_endpoints=luci" >/dev/null 2>&1 || true
check "without its user it starts nothing" test ! -e "$root/tmp/procd.command"
cat "$work/passwd" >"$root/etc/passwd"

# --- runit, if it is installed ------------------------------------------------
if command -v runsv >/dev/null 2>&1; then
	echo "runit:"
	mkdir -p "$root/etc/sv"
	cp -R cross/init/runit "$root/etc/sv/culvert"
	rm -rf "$root/etc/sv/culvert/log"
	sed -i 's/sleep 10/sleep 1/' "$root/etc/sv/culvert/finish"
	in_root 'exec runsv /etc/sv/culvert >/var/log/runit.log 2>&1 &'
	check "the endpoint answers" until_ok served
	runit_pid() {
		cat "$root/etc/sv/culvert/supervise/pid"
	}
	before=$(runit_pid)
	check "sv hup" in_root 'sv hup /etc/sv/culvert'
	check "it has read its configuration again" until_ok grep -q 'configuration reloaded' "$root/var/log/runit.log"
	check "it can gain no privileges" test "$(value_of "$before" NoNewPrivs)" = 1
	check "and leaves no core file" grep -qE '^Max core file size +0 +0' "/proc/$before/limits"
	check "it runs as its user" test "$(value_of "$before" Uid)" = 555
	kill -KILL "$before"
	runit_respawned() {
		[ -n "$(runit_pid)" ] && [ "$(runit_pid)" != "$before" ] && served
	}
	check "killed, it comes back" until_ok runit_respawned
	check "sv stop" in_root 'sv -w 15 stop /etc/sv/culvert'
	check "nothing answers" until_ok not_served
	sed -i '/^culvert/d' "$root/etc/passwd"
	check "without its user" test "$(in_root 'exec /etc/sv/culvert/run' || echo $?)" = \
		"user culvert is missing: culvert is not started
1"
	cat "$work/passwd" >"$root/etc/passwd"
else
	skipped "init scripts: runit" "runsv is not installed"
fi

# --- culvert service ----------------------------------------------------------
# It runs itself again, which needs no emulator.
if [ -z "${EMULATOR:-}" ]; then
	. tests/system/init/service.sh
fi

# --- few applets ---------------------------------------------------------------
# The applets of OpenWrt's BusyBox by default (Config-defaults.in). Debian's shell would find
# every applet of its own, so another shell without them is used.
if command -v dash >/dev/null 2>&1; then
	echo "with the applets that OpenWrt's BusyBox has, and no others:"
	rm -f "$root"/bin/*
	cp "$(command -v busybox)" "$root/bin/busybox"
	for applet in ash awk basename cat chgrp chmod chown chroot clear cmp cp crond crontab cut date dd df \
		dirname dmesg du echo egrep env expr false fgrep find flock free grep gunzip gzip halt head hexdump \
		hwclock id ifconfig ip kill killall less ln lock logger login ls md5sum mkdir mkfifo mknod mkswap \
		mktemp mount mv nc netmsg netstat nice nslookup ntpd passwd pgrep pidof ping ping6 pivot_root \
		poweroff printf ps pwd readlink reboot reset rm rmdir route sed seq sha256sum sleep sort \
		strings swapoff swapon switch_root sync sysctl tail tar taskset tee test time top touch tr \
		traceroute true udhcpc umount uname uniq uptime vi wc which xargs yes zcat; do
		ln -s busybox "$root/bin/$applet"
	done
	# Debian's BusyBox has no flock.
	if ! busybox --list | grep -qx flock && command -v flock >/dev/null 2>&1; then
		rm "$root/bin/flock"
		install_program "$(command -v flock)"
	fi
	install_program "$(command -v dash)"
	ln -s ../usr/bin/dash "$root/bin/sh"
	# Without long options and other extensions.
	cat >"$root/bin/start-stop-daemon" <<-'END'
		#!/bin/sh
		for word; do
			case $word in
			--) break ;;
			--* | -[ovNR]*) echo "start-stop-daemon has no option $word" >&2 && exit 1 ;;
			esac
		done
		exec busybox start-stop-daemon "$@"
	END
	chmod 755 "$root/bin/start-stop-daemon"
	check "there are few indeed" sh -c "! chroot '$root' sh -c 'command -v nohup || command -v setsid || command -v stat'"
	for log in syslog /var/log/few.log; do
		sed -i "s|^LOG=.*|LOG=$log|" "$root/etc/default/culvert"
		check "start, LOG=$log" sh -c "chroot '$root' /etc/init.d/culvert start >'$work/few' 2>&1"
		check "it lacks nothing" sh -c "! grep -v -e '^starting culvert' -e '^heap allocations' '$work/few'"
		check "the endpoint answers" until_ok served
		check "it runs as its user" test "$(value_of "$(agent_pid)" Uid)" = 555
		before=$(agent_pid)
		kill -KILL "$before"
		check "killed, it comes back" until_ok respawned "$before"
		check "status" sh -c "chroot '$root' /etc/init.d/culvert status | grep -q 'is running'"
		before=$(agent_pid)
		check "stop" init stop
		check "the agent is gone" until_ok gone "$before"
		check "no supervisor is left" test "$(supervisors)" = 0
	done
	check "the log is in the file" grep -q router.localhost "$root/var/log/few.log"
	check "OpenWrt's script" procd "cfg_main_enabled=1 cfg_endpoints=luci cfg_luci_upstream=file:///srv/www \
		cfg_luci_url=http://luci.localhost"
	check "it has written what it should" grep -qF "url: 'http://luci.localhost'" "$root/var/etc/culvert-endpoints.yml"
else
	skipped "init scripts: OpenWrt's applets" "dash is not installed"
fi

echo "init: $passed passed, $failed failed"
[ "$failed" = 0 ]
