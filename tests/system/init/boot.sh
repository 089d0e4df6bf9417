#!/bin/sh
# make test-init-boot: the package and the scripts under the real service managers, which are
# started as process 1 of namespaces without a network, on a copy of this Debian's root that
# exists in RAM only. Two minutes for each; needs root.
#
# usage: boot.sh systemd|openrc
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-$PWD/target}
manager=${1:-}

# Changes the copy of this machine's root, before its first boot.
prepare() {
	# Without the services of this machine.
	rm -rf "$root"/etc/systemd/system/* "$root"/etc/rc?.d/* "$root/etc/fstab" "$root/var/log/journal"
	# Without the state of an earlier culvert.
	rm -rf "$root/etc/culvert" "$root/var/lib/culvert"
	sed -i '/^culvert:/d' "$root/etc/passwd" "$root/etc/group" "$root/etc/shadow"
	rm -f "$root/usr/sbin/policy-rc.d" "$root/.dockerenv"
	mkdir -p "$root/test" "$root/srv/www" "$root/root"
	cp -R "$work"/files/* "$root/test/"
	echo '<h1>through the tunnel</h1>' >"$root/srv/www/index.html"
	printf '127.0.0.1 localhost router.localhost more.localhost\n' >"$root/etc/hosts"
	: >"$root/etc/resolv.conf"
	: >"$root/etc/insserv.conf"
	if [ "$manager" = openrc ]; then
		for package in "$root"/test/openrc_*.deb "$root"/test/lib*.deb; do
			# /sbin is a link here: dpkg-deb -x would replace it.
			dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
		done
		chroot "$root" ldconfig
		# As Alpine boots.
		printf '%s\n' '::sysinit:/sbin/openrc sysinit' '::wait:/sbin/openrc boot' '::wait:/sbin/openrc default' \
			'::shutdown:/sbin/openrc shutdown' >"$root/etc/inittab"
		rm -rf "$root"/etc/runlevels
		mkdir -p "$root/etc/runlevels/sysinit" "$root/etc/runlevels/boot" "$root/etc/runlevels/default" \
			"$root/etc/runlevels/shutdown"
		echo 'rc_sys="lxc"' >>"$root/etc/rc.conf"
	fi
}

# --- process 1, before it becomes the service manager --------------------------
if [ "$manager" = inside ]; then
	manager=$2
	work=$3
	root=$work/root
	first=yes
	[ ! -d "$work/upper" ] || first=
	mkdir -p "$work/upper" "$work/under" "$root"
	mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/under" none "$root"
	for directory in run tmp; do
		mount -t tmpfs none "$root/$directory"
	done
	mount -t proc none "$root/proc"
	mount -t sysfs -o ro none "$root/sys"
	mount -t cgroup2 none "$root/sys/fs/cgroup"
	mount -t tmpfs -o mode=755 none "$root/dev"
	for node in null zero full random urandom tty; do
		: >"$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	done
	mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/lock"
	mount -t devpts -o ptmxmode=666 none "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	chmod 1777 "$root/tmp" "$root/dev/shm"
	ip link set lo up
	# Not again at a restart.
	[ -z "$first" ] || prepare
	cd "$root"
	mkdir -p mnt
	pivot_root . mnt
	umount -l mnt
	: >/run/ready
	if [ "$manager" = openrc ]; then
		set -- /test/busybox init
	else
		set -- /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
	fi
	exec env -i container=culvert-test PATH="$PATH" "$@" <dev/null >/run/console 2>&1
fi

case $manager in
systemd | openrc) ;;
*)
	echo "usage: tests/system/init/boot.sh systemd|openrc" >&2
	exit 2
	;;
esac

. tests/skips.sh
skip() {
	skipped "package under $manager" "$1"
	exit 0
}
[ "$(id -u)" = 0 ] || skip "this needs root"
command -v dpkg >/dev/null 2>&1 || skip "this is no Debian"
sh tests/prepare.sh busybox signify-openbsd unshare pivot_root /lib/systemd/systemd adduser wget
arch=$(dpkg --print-architecture)
triple=$(awk -F '\t' -v arch="$arch" '$7 == arch { print $1 }' cross/targets.tsv)
[ -n "$triple" ] || skip "no package is made for $arch"
unshare -mpnuiCf --mount-proc true 2>/dev/null || skip "no namespaces can be made here"

cargo build --quiet --locked --all-features --bins
work=$(mktemp -d)
group=
booted=
finish() {
	# The end of process 1 ends all processes of the namespaces.
	[ -z "$booted" ] || kill -KILL "$booted" 2>/dev/null || true
	[ -z "$group" ] || {
		wait 2>/dev/null || true
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
		umount "$work/cgroup" || true
	}
	umount "$work/ram" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
mkdir -p "$work/ram" "$work/cgroup"
mount -t tmpfs none "$work/ram"
mkdir "$work/ram/files"
CARGO_TARGET_DIR=$work/ram PROGRAM=$target/debug/culvert sh cross/dist.sh "$triple" >/dev/null
cp "$work"/ram/dist/*.deb "$work/ram/files/culvert.deb"
cp "$target/debug/culvert" "$target/debug/culvert-edge" "$(command -v busybox)" cross/init/culvert.openrc "$work/ram/files/"
. tests/system/init/feed.sh
make_feed "$target/debug/culvert" "$work/ram/files/feed"
if [ "$manager" = openrc ]; then
	# Unpacked into the copy: an installation would be on this machine.
	kept=$target/openrc
	ls "$kept"/*.deb >/dev/null 2>&1 || {
		mkdir -p "$kept"
		(cd "$kept" && apt-get download -qq openrc librc1 libeinfo1 2>/dev/null) || skip "apt-get cannot download openrc"
	}
	cp "$kept"/*.deb "$work/ram/files/"
fi

# Its own group, so that a service manager finds it empty.
mount -t cgroup2 none "$work/cgroup"
group=$work/cgroup/culvert-test.$$
mkdir "$group"

. tests/checks.sh
evidence() {
	cat "$work/outer"
	inside 'cat /run/console; tail -n 30 /test/edge.log; cat /var/log/culvert.log; journalctl -n 40 --no-pager' 2>/dev/null || true
}
has_child() {
	booted=$(tr -d ' ' <"/proc/$outer/task/$outer/children") && [ -n "$booted" ]
}
inside() {
	nsenter -t "$booted" -a -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb sh -c "$1"
}
served() { # name
	inside "wget -q -O - http://$1.localhost:4080/" | grep -q 'through the tunnel'
}
agent_pid() {
	inside "pidof culvert"
}
respawned() { # from pid
	now=$(agent_pid) && [ "$now" != "$1" ] && served router
}
status_is() { # pid field value
	inside "grep -qE '^$2:[[:space:]]+$3' /proc/$1/status"
}
no_process() {
	! agent_pid >/dev/null
}
no_link() {
	! inside 'ls /etc/rc?.d/*culvert /etc/systemd/system/*/culvert* 2>/dev/null' | grep -q .
}

booted_to() { # condition
	until_ok inside "$1" || {
		cat "$work/outer"
		inside 'cat /run/console; ps -e' || true
		echo "$manager does not come up in namespaces" >&2
		exit 1
	}
}
boot() {
	# shellcheck disable=SC2016 # that shell's own
	sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$group" \
		unshare -mpnuiCf --kill-child sh tests/system/init/boot.sh inside "$manager" "$work/ram" 2>"$work/outer" &
	outer=$!
	until_ok has_child
	booted_to 'test -e /run/ready'
	if [ "$manager" = systemd ]; then
		booted_to 'systemctl is-active --quiet multi-user.target'
	else
		booted_to 'test -e /run/openrc/softlevel && rc-status -r | grep -q default'
	fi
}
start_edge() {
	inside 'cd /test && mkdir -p edge && chmod 755 edge && (exec ./culvert-edge dev --dir edge >edge.log 2>&1 &)'
	until_ok inside 'test -s /test/edge/agent.yml'
}
boot
if [ "$manager" = systemd ]; then
	echo "the .deb under $(inside 'systemctl --version' | head -n 1):"
else
	echo "the .deb and OpenRC's script under $(inside 'openrc --version'):"
fi
check "it installs" inside 'DEBIAN_FRONTEND=noninteractive dpkg --force-depends -i /test/culvert.deb >/run/dpkg 2>&1 || { cat /run/dpkg; false; }'
check "nothing is started" no_process
check "the configuration is its user's alone" test "$(inside 'stat -c %U:%a /etc/culvert/culvert.yml')" = culvert:600
start_edge
inside '
	{
		cat /test/edge/agent.yml
		printf "endpoints:\n  - name: web\n    url: http://router.localhost\n    upstream:\n      url: file:///srv/www\n"
	} | sed "s,edge/ca.pem,/test/&,; s,/test//test,/test," >/etc/culvert/culvert.yml
	chmod 755 /test/edge'
check "the configuration is right" inside 'culvert config check --config /etc/culvert/culvert.yml >/dev/null 2>&1'
add='printf "  - name: more\n    url: http://more.localhost\n    upstream:\n      url: file:///srv/www\n" >>/etc/culvert/culvert.yml'

# Operations of every manager, with its own commands.
case $manager in
systemd)
	start='systemctl enable --quiet --now culvert'
	service() { inside "systemctl $1 culvert"; }
	;;
openrc)
	start='rc-update -q add culvert default && rc-service -q culvert start'
	inside 'cp /test/culvert.openrc /etc/init.d/culvert && chmod 755 /etc/init.d/culvert &&
		sed -i "s/^respawn_delay=.*/respawn_delay=1/" /etc/init.d/culvert'
	service() { inside "rc-service culvert $1 >/dev/null 2>&1"; }
	;;
esac
check "start, now and at each boot" inside "$start"
check "the endpoint answers" until_ok served router
[ "$failed" = 0 ] || {
	echo "$manager: $passed passed, $failed failed"
	exit 1
}
check "status" service status >/dev/null
check "culvert service status" inside 'culvert service status | grep -q "^status     online"'
check "culvert service install is refused beside it" test "$(inside 'culvert service install >/dev/null 2>&1; echo $?')" = 1
pid=$(agent_pid)
check "it runs as its user" status_is "$pid" Uid "$(inside 'id -u culvert')"
check "it can gain no privileges" status_is "$pid" NoNewPrivs 1
check "it has none" status_is "$pid" CapEff '0+$'
check "and leaves no core file" inside "grep -qE '^Max core file size +0 +0' /proc/$pid/limits"
inside "$add"
check "reload" service reload
check "the endpoint that was added answers" until_ok served more
check "it is the same process" test "$(agent_pid)" = "$pid"
inside 'echo "bad: [" >>/etc/culvert/culvert.yml'
check "reload of a configuration with a fault fails" test "$(service reload >/dev/null 2>&1 || echo failed)" = failed
check "and changes nothing" served more
inside 'sed -i "/^bad/d" /etc/culvert/culvert.yml'

if [ "$manager" = systemd ]; then
	show() { inside "systemctl show culvert -p $1 --value"; }
	check "systemd knows the state" until_ok sh -c "nsenter -t $booted -a -r systemctl show culvert -p StatusText | grep -q 'online, 2 endpoints'"
	check "its sandbox" test "$(inside "grep ^Seccomp: /proc/$pid/status | tr -dc 0-9")" = 2
	check "the log is in the journal" inside 'journalctl -u culvert --no-pager | grep -q "url=http://router.localhost"'
	inside 'mkdir -p /run/systemd/system/culvert.service.d &&
		printf "[Service]\nRestartSec=1\nWatchdogSec=3\n" >/run/systemd/system/culvert.service.d/test.conf &&
		systemctl daemon-reload && systemctl restart culvert'
	check "restart" until_ok respawned "$pid"
	before=$(agent_pid)
	inside "kill -STOP $before"
	check "one that hangs is started again" until_ok respawned "$before"
	check "because of the watchdog" inside 'journalctl -u culvert --no-pager | grep -q "Watchdog timeout"'
else
	check "the log is somewhere" until_ok inside 'grep -q "url=http://router.localhost" /var/log/culvert.log || logread | grep -q culvert'
	check "restart" service restart
	check "it is another process" until_ok respawned "$pid"
fi
before=$(agent_pid)
inside "kill -KILL $before"
check "killed, it comes back" until_ok respawned "$before"
check "stop" service stop
check "it is gone" until_ok no_process
if [ "$manager" = systemd ]; then
	check "it ended as asked" test "$(show Result):$(show ExecMainStatus)" = success:0
fi
inside "$start" >/dev/null
check "it starts again" until_ok served more
before=$(agent_pid)
check "the package is installed over it" inside 'dpkg --force-depends -i /test/culvert.deb >/dev/null 2>&1'
[ "$manager" = openrc ] || check "that starts the new program" until_ok respawned "$before"
check "the endpoints are the user's" until_ok served more
inside 'cp /etc/culvert/culvert.yml /test/culvert.yml'
check "the package is removed" inside 'dpkg -r culvert >/dev/null 2>&1'
check "nothing runs any more" until_ok no_process
[ "$manager" = openrc ] || check "and is started by nothing" test "$(inside 'systemctl is-enabled culvert.service 2>/dev/null')" != enabled
check "it is purged" inside 'dpkg -P culvert >/dev/null 2>&1'
check "no link is left" no_link
check "no configuration is left" inside 'test ! -e /etc/culvert -a ! -e /etc/init.d/culvert -a ! -e /var/lib/culvert'

echo "culvert service under $manager:"
culvert() {
	inside "/usr/local/bin/culvert service $*"
}
code_is() { # code command...
	code=$1
	shift
	got=0
	"$@" >"$work/code" 2>&1 || got=$?
	[ "$got" = "$code" ]
}
online() {
	culvert status | grep -q '^status     online'
}
files='find /etc/init.d /etc/systemd /etc/rc?.d /etc/runlevels /etc/default /var/lib/culvert /var/log/culvert.log 2>/dev/null | sort'
install='install --config /etc/culvert/culvert.yml'
inside 'rm -f /var/log/culvert.log; userdel culvert; mkdir -p /etc/culvert && cp /test/culvert.yml /etc/culvert/ && chmod 600 /etc/culvert/culvert.yml &&
	install -m 755 /test/culvert /usr/local/bin/culvert'
check "a file that the user cannot read is refused" code_is 1 culvert "$install"
check "with the remedy" grep -qF 'chown culvert /etc/culvert/culvert.yml' "$work/code"
check "the user is created" inside 'id culvert >/dev/null && chown culvert /etc/culvert/culvert.yml'
inside "$files >/test/before"
check "install" culvert "$install"
check "nothing is started" no_process
check "status" code_is 3 culvert status
check "install twice" culvert "$install"
check "start" culvert start
check "the endpoint answers" until_ok served router
check "status" until_ok code_is 0 culvert status
check "the session is online" until_ok online
check "it runs as its user" status_is "$(agent_pid)" Uid "$(inside 'id -u culvert')"
before=$(agent_pid)
inside "kill -KILL $before"
check "killed, it comes back" until_ok respawned "$before"
before=$(agent_pid)
check "restart" culvert restart
check "it is another process" until_ok respawned "$before"
# As at a power failure.
kill -KILL "$booted"
wait "$outer" || true
boot
start_edge
check "after a restart of the machine the endpoint answers" until_ok served router
check "status" code_is 0 culvert status
check "stop" culvert stop
check "nothing runs any more" until_ok no_process
check "status" code_is 3 culvert status
check "start" culvert start
check "the endpoint answers" until_ok served router
check "uninstall" culvert uninstall
check "nothing runs any more" until_ok no_process
check "status" code_is 4 culvert status
inside "$files >/test/after"
check "nothing is left" inside 'diff /test/before /test/after'
check "no link is left" no_link

echo "culvert update --restart under $manager:"
updated() {
	inside "/usr/local/bin/culvert update $*"
}
printed() {
	grep -qF -- "$1" "$work/code" || {
		cat "$work/code"
		return 1
	}
}
inside "sed -i '$(add_feed)' /etc/culvert/culvert.yml && (exec /test/busybox httpd -p 127.0.0.1:8099 -h /test/feed)"
check "install with another name" culvert "$install --name home"
check "start" culvert start --name home
check "the endpoint answers" until_ok served router
before=$(agent_pid)
check "update" code_is 0 updated --yes --restart
check "the service is restarted" printed "Restarted service home"
check "and online" printed "Service home is online with $newer"
check "it is another process" test "$(agent_pid)" != "$before"
check "the program is confirmed" inside '! grep starts /usr/local/bin/.culvert.update'
before=$(agent_pid)
check "go back" code_is 0 updated --rollback --restart
check "it is the old version" printed "Restored $older"
check "it is restarted" until_ok respawned "$before"
check "the program is the old one" inside 'cmp /test/culvert /usr/local/bin/culvert'
if [ "$manager" = systemd ]; then
	# It accepts the configuration and does not start.
	feed=$work/feed
	mkdir -p "$feed/stable"
	# shellcheck disable=SC2016 # that shell's own
	printf '#!/bin/sh\n[ "$1" != start ] || exit 1\necho culvert version %s\n' "$newer" >"$feed/stable/new"
	publish 2 "$newer"
	tar -C "$feed" -c . | inside 'tar -C /test/feed -x'
	check "a version that never has a session" code_is 1 updated --yes --restart
	check "is replaced by the old one" printed "$older was restored"
	check "the endpoint answers" until_ok served router
	check "the program is the old one" inside 'cmp /test/culvert /usr/local/bin/culvert'
	check "it is not installed again" code_is 0 updated --check
fi
check "uninstall" culvert uninstall --name home
no_home() {
	! inside 'find /etc /var/lib /var/log -name home -o -name home.service -o -name "culvert-home*"' | grep .
}
check "nothing of it is left" no_home

# A unit as ngrok's agent writes it, with the path of the program changed.
if [ "$manager" = systemd ]; then
	inside 'cat >/etc/systemd/system/ngrok.service' <<-'END'
		[Unit]
		Description=ngrok secure tunnel client
		ConditionFileIsExecutable=/usr/local/bin/culvert

		[Service]
		StartLimitInterval=5
		StartLimitBurst=10
		ExecStart=/usr/local/bin/culvert "service" "run" "--config" "/etc/culvert/culvert.yml"
		Restart=always
		RestartSec=15
		EnvironmentFile=-/etc/sysconfig/ngrok

		[Install]
		WantedBy=multi-user.target
	END
	check "the unit of another agent" inside 'systemctl daemon-reload && systemctl start ngrok'
	check "the endpoint answers" until_ok served router
fi

echo "$manager: $passed passed, $failed failed"
[ "$failed" = 0 ]
