#!/bin/sh
# `culvert service` in the root of run.sh, which reads this file: BusyBox's init, procd's
# stand-in and runit, without process 1 of these systems. Under real ones: boot.sh.
# shellcheck shell=sh disable=SC2154 # variables and functions of run.sh

config=/etc/culvert/culvert.yml
service() {
	in_root "culvert service $*"
}
# refused TEXT COMMAND...: the command fails, and its output contains the text.
refused() {
	text=$1
	shift
	! "$@" >"$work/refused" 2>&1 && grep -qF -- "$text" "$work/refused"
}
code_is() { # code command...
	code=$1
	shift
	got=0
	"$@" >"$work/code" 2>&1 || got=$?
	[ "$got" = "$code" ]
}
session_is_online() { # init
	service "status --init $1" 2>/dev/null | grep -q '^status     online'
}

echo "culvert service: what is refused:"
install="install --init busybox --config $config"
: >"$root/etc/init.d/rcS"
cp cross/init/culvert.init "$root/etc/init.d/culvert"
check "an unknown process 1" refused "is not a known init system" service install --config $config
: >"$root/.dockerenv"
check "a container" refused "this is a container" service install --config $config
rm "$root/.dockerenv"
check "a user without rights" refused "needs root: sudo culvert service install" \
	chroot --userspec=555:555 --groups= "$root" /usr/bin/culvert service install --config $config
cp "$root/usr/bin/culvert" "$root/tmp/"
check "a program in /tmp" refused "temporary directory" in_root "/tmp/culvert service $install"
rm "$root/tmp/culvert"
chmod 777 "$root/usr/bin"
check "a program that others can replace" refused "another user than root can replace" service "$install"
chmod 755 "$root/usr/bin"
check "beside the service of a package" refused "was not made by this command" service "$install"
check "its state is that of its script" code_is 3 service status --init busybox
rm "$root/etc/init.d/culvert"
chown 0:0 "$root$config"
check "a file that the user cannot read" refused "Give it the file, as in \"chown culvert $config\"" service "$install"
chown 555:555 "$root$config"
check "a user that does not exist" refused "the user nemo is missing" service "$install --user nemo"
chown 65534 "$root/etc/init.d"
check "a directory of another user" refused "user 65534 owns it" service "$install"
chown 0 "$root/etc/init.d"
mount -t tmpfs -o ro,mode=755 none "$root/etc/init.d"
check "a read-only root" refused "mount it writable" service "$install"
umount "$root/etc/init.d"
mount -t tmpfs -o size=8k,mode=755 none "$root/etc/init.d"
dd if=/dev/zero of="$root/etc/init.d/full" bs=4k 2>/dev/null || true
check "a full disk" refused "make room there" service "$install"
check "nothing is left on it" test "$(ls -A "$root/etc/init.d")" = full
umount "$root/etc/init.d"
check "nothing was installed" test ! -e "$root/etc/init.d/culvert" -a ! -L "$root/etc/init.d/S90culvert"
check "status" code_is 4 service status --init busybox

echo "culvert service, with BusyBox:"
# Debian's BusyBox has no adduser. boot.sh tests the creation.
sed -i '/^culvert/d' "$root/etc/passwd"
check "a user that cannot be created" refused "the user culvert cannot be created" service "$install"
cat "$work/passwd" >"$root/etc/passwd"
check "install" service "$install"
check "nothing runs" test "$(agents)" = 0
check "status" code_is 3 service status --init busybox
check "install twice, and start" service "$install --now"
check "it is the same" test "$(stat -c %a "$root/etc/init.d/culvert")" = 755
check "the endpoint answers" until_ok served
check "it runs as its user" test "$(value_of "$(agent_pid)" Uid)" = 555
check "status" code_is 0 service status --init busybox
check "the session is online" until_ok session_is_online busybox
before=$(agent_pid)
kill -KILL "$before"
check "killed, it comes back" until_ok respawned "$before"
before=$(agent_pid)
check "restart" service restart --init busybox
check "it is another process" until_ok respawned "$before"
before=$(agent_pid)
echo 'endpoints: [' >>"$root$config"
check "restart with a fault in the configuration fails" code_is 1 service restart --init busybox
check "it names the fault" grep -q "$config:[0-9]*:[0-9]*: " "$work/code"
check "it is the same process" test "$(agent_pid)" = "$before"
sed -i '/^endpoints: \[/d' "$root$config"
check "stop" service stop --init busybox
check "no agent is left" test "$(agents)" = 0
check "status" code_is 3 service status --init busybox
# shellcheck disable=SC2016 # that shell's own
check "the link starts it at boot" in_root 'for i in /etc/init.d/S??*; do "$i" start; done'
check "the endpoint answers" until_ok served
check "uninstall" service uninstall --init busybox
check "no agent is left" test "$(agents)" = 0
check "nothing is left" test ! -e "$root/etc/init.d/culvert" -a ! -L "$root/etc/init.d/S90culvert"
check "status" code_is 4 service status --init busybox
check "uninstall again" service uninstall --init busybox

echo "culvert service, beside a stand-in for procd:"
install="install --init procd --config $config"
rm -f "$root/tmp/procd.command"
check "install" service "$install"
check "it is kept over an update" grep -qx "$config" "$root/lib/upgrade/keep.d/culvert"
check "it is started at boot" test -x "$root/etc/rc.d/S95culvert"
check "start" service start --init procd
check "every endpoint of the file" grep -q "^/usr/bin/culvert start --all --config $config " "$root/tmp/procd.command"
check "as its user" grep -qF "user culvert;" "$root/tmp/procd.parameters"
chroot --userspec=555:555 --groups= "$root" /bin/sh -c "exec $(cat "$root/tmp/procd.command")" >"$work/procd" 2>&1 &
started=$!
check "the endpoint answers" until_ok served
check "uninstall" service uninstall --init procd
kill -TERM $started || true
wait $started || true
check "nothing is left" sh -c "! ls '$root'/etc/init.d/culvert '$root'/etc/rc.d/*culvert '$root'/lib/upgrade/keep.d/culvert '$root'/var/etc/culvert* 2>/dev/null"

if command -v runsvdir >/dev/null 2>&1; then
	echo "culvert service, with runit:"
	rm -rf "$root/etc/sv" "$root/run/runit"
	mkdir -p "$root/var/service"
	in_root 'exec runsvdir /var/service >/var/log/runsvdir.log 2>&1 &'
	install="install --init runit --config $config"
	check "install" service "$install"
	sed -i 's/sleep 10/sleep 1/' "$root/etc/sv/culvert/finish"
	check "start" service start --init runit
	check "the endpoint answers" until_ok served
	check "the session is online" until_ok session_is_online runit
	check "status" code_is 0 service status --init runit
	runit_pid() {
		cat "$root/etc/sv/culvert/supervise/pid"
	}
	before=$(runit_pid)
	check "it runs as its user" test "$(value_of "$before" Uid)" = 555
	kill -KILL "$before"
	check "killed, it comes back" until_ok runit_respawned
	before=$(runit_pid)
	check "restart" service restart --init runit
	check "it is another process" until_ok runit_respawned
	check "stop" service stop --init runit
	check "nothing answers" until_ok not_served
	check "status" code_is 3 service status --init runit
	check "start" service start --init runit
	check "the endpoint answers" until_ok served
	check "uninstall" service uninstall --init runit
	check "nothing answers" until_ok not_served
	check "nothing is left" test ! -e "$root/etc/sv/culvert" -a ! -L "$root/var/service/culvert" -a ! -e "$root/var/log/culvert"
else
	skipped "culvert service: runit" "runsvdir is not installed"
fi
if [ -n "${AGENT:-}" ]; then
	: # A feed for another target is not made here.
elif command -v signify-openbsd >/dev/null 2>&1; then
	. tests/system/init/feed.sh
	# Output and exit code are checked.
	updated() {
		code_is 0 in_root "culvert update $*"
	}
	printed() {
		grep -qF -- "$1" "$work/code" || {
			cat "$work/code"
			return 1
		}
	}
	pid_of() { # service
		cat "$root/run/$1.agent.pid" 2>/dev/null || echo 0
	}
	replaced() { # from pid
		[ "$(pid_of home)" != "$1" ] && served
	}
	make_feed "$agent" "$root/srv/feed"
	cp "$root/usr/bin/culvert" "$work/culvert"
	cp "$root$config" "$work/config"
	# It would be a service too.
	mv "$root/etc/init.d/culvert.procd" "$work/"
	sed -i "$(add_feed)" "$root$config"
	in_root 'httpd -p 127.0.0.1:8099 -h /srv/feed'
	# Process 1 is this shell.
	check "status with an unknown init system" code_is 4 service status
	check "the cause is printed" printed "process 1 is sh"
	echo init >/proc/1/comm
	echo "culvert update --restart, with BusyBox:"
	# Filled in later. A directory is read in the order of its entries, or in reverse.
	: >"$root/etc/init.d/before"
	check "install a service with another name" service "install --config $config --name home --user root --now"
	: >"$root/etc/init.d/after"
	# With a configuration of its own.
	cp -p "$root$config" "$root/etc/culvert/other.yml"
	check "and one that stays stopped" service "install --config /etc/culvert/other.yml --name other"
	check "the endpoint answers" until_ok served
	before=$(pid_of home)
	check "update" updated --yes --restart
	check "it is restarted" printed "Restarted service home"
	check "and online" printed "Service home is online with $newer"
	check "it is another process" test "$(pid_of home)" != "$before"
	check "the other service is not started" test "$(pid_of other)" = 0
	check "the program is confirmed" sh -c "! grep -q starts '$root/usr/bin/.culvert.update'"
	before=$(pid_of home)
	check "go back" updated --rollback --restart
	check "it is the old version" printed "Restored $older"
	check "it is restarted" until_ok replaced "$before"
	check "the program is the old one" cmp "$root/usr/bin/culvert" "$work/culvert"
	check "no update" updated --yes --restart
	check "this one failed before" printed "was replaced by $older here"
	# The new version does not accept the configuration.
	# shellcheck disable=SC2016 # that shell's own
	printf '#!/bin/sh\n[ "$1" = version ] || exit 1\necho culvert version %s\n' "$newer" >"$root/srv/feed/stable/new"
	publish 2 "$newer"
	before=$(pid_of home)
	check "a version that does not accept the configuration" code_is 1 in_root 'culvert update --yes --restart'
	check "is replaced by the old one" printed "$older was restored"
	check "the program is the old one" cmp "$root/usr/bin/culvert" "$work/culvert"
	check "the service was not restarted" test "$(pid_of home)" = "$before"
	check "it can be installed later" code_is 11 in_root 'culvert update --check'
	service "uninstall --name other" >/dev/null
	# Its interpreter is missing after the first run.
	cp "$root/bin/busybox" "$root/tmp/sh"
	printf '#!/tmp/sh\nrm /tmp/sh\necho culvert version %s\n' "$newer" >"$root/srv/feed/stable/new"
	publish 3 "$newer"
	check "a version that cannot be run" code_is 1 in_root 'culvert update --yes --restart'
	check "the cause is printed" printed "cannot be run to check the configuration"
	check "is replaced by the old one" printed "$older was restored"
	check "the program is the old one" cmp "$root/usr/bin/culvert" "$work/culvert"
	make_feed "$agent" "$root/srv/feed"
	publish 4 "$newer"
	# They are running services of the program and cannot be restarted.
	for name in before after; do
		# shellcheck disable=SC2016 # that shell's own
		printf '#!/bin/sh\nPROGRAM=/usr/bin/culvert\n[ "$1" = status ]\n' >"$root/etc/init.d/$name"
		chmod 755 "$root/etc/init.d/$name"
	done
	check "a restart that fails" code_is 1 in_root 'culvert update --yes --restart'
	check "the old version is restored" printed "$older was restored"
	check "the program is the old one" cmp "$root/usr/bin/culvert" "$work/culvert"
	check "the endpoint answers" until_ok served
	check "it is not installed again" code_is 0 in_root 'culvert update --check'
	publish 5 "$newer"
	check "update without a restart" updated --yes
	before=$(pid_of home)
	check "go back, with a restart that fails" code_is 1 in_root 'culvert update --rollback --restart'
	check "it is reported" printed '"/etc/init.d/after restart" failed'
	check "so is the other one" printed '"/etc/init.d/before restart" failed'
	check "the third service is restarted" until_ok replaced "$before"
	rm "$root/etc/init.d/before" "$root/etc/init.d/after"
	check "stop" service stop --name home
	chroot "$root" /usr/bin/culvert http file:///srv/www --url http://hand.localhost \
		--config /etc/edge/agent.yml --log false >/dev/null 2>&1 &
	other=$!
	check "an agent of a user is online" until_ok in_root 'wget -q -O - http://127.0.0.1:4040/api/status | grep online'
	check "start" service start --name home
	check "the endpoint answers" until_ok served
	publish 6 "$newer"
	check "update beside the agent of a user" updated --yes --restart
	check "the service is restarted" printed "Restarted service home"
	check "with two agents its session is not known" sh -c "! grep -F 'is online' '$work/code'"
	kill -TERM $other || true
	wait $other || true
	check "go back" updated --rollback
	check "stop" service stop --name home
	publish 7 "$newer"
	check "update while no service runs" updated --yes --restart
	check "nothing is started" test "$(agents)" = 0
	check "that is printed" printed "No service of the program is running"
	check "uninstall" service "uninstall --name home"
	cp "$work/culvert" "$root/usr/bin/culvert"
	check "without a service" code_is 1 in_root 'culvert update --rollback --restart'
	check "the remedy is named" printed "restart the agent by hand"

	echo "culvert update --restart, beside a stand-in for procd:"
	: >"$root/etc/openwrt_release"
	check "install" service "install --config $config --name home --now"
	rm -f "$root/tmp/procd.command" "$root"/usr/bin/.culvert.*
	: >"$root/tmp/procd.command"
	check "update" updated --yes --restart
	check "it is restarted" printed "Restarted service home"
	check "by its script" grep -q "^/usr/bin/culvert start --all --config $config " "$root/tmp/procd.command"
	check "uninstall" service "uninstall --name home"
	rm -f "$root/etc/openwrt_release" "$root"/usr/bin/.culvert.* "$root/tmp/procd.command"
	cp "$work/culvert" "$root/usr/bin/culvert"

	if command -v runsvdir >/dev/null 2>&1; then
		echo "culvert update --restart, with runit:"
		mkdir -p "$root/run/runit"
		check "install" service "install --config $config --name home --user root"
		sed -i 's/sleep 10/sleep 1/' "$root/etc/sv/home/finish"
		check "the endpoint answers" until_ok served
		before=$(cat "$root/etc/sv/home/supervise/pid")
		check "update" updated --yes --restart
		check "it is restarted" printed "Restarted service home"
		check "and online" printed "Service home is online with $newer"
		check "it is another process" test "$(cat "$root/etc/sv/home/supervise/pid")" != "$before"
		check "uninstall" service "uninstall --name home"
		rm -rf "$root/run/runit" "$root"/usr/bin/.culvert.*
		cp "$work/culvert" "$root/usr/bin/culvert"
	fi
	echo sh >/proc/1/comm
	mv "$work/culvert.procd" "$root/etc/init.d/"
	cp "$work/config" "$root$config"
	chown 555:555 "$root$config"
else
	skipped "culvert update --restart" "signify-openbsd is not installed"
fi
cp cross/init/culvert.init "$root/etc/init.d/culvert"
