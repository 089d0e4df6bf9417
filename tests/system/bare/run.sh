#!/bin/sh
# make test-bare: a machine that lacks almost everything. Each test has a root directory with
# the agent and the named files only: no /proc, no /dev, no shell, no users. Namespaces isolate
# it: this machine is not changed and no packet leaves it. Needs root; without it one line is
# printed, without a failure.
#
# usage: run.sh [NAME...]      some of the tests below, without `try_`
# AGENT=FILE  a static agent. Without it the debug build is used, with its libraries.
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PATH:$HOME/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
. tests/apart.sh
[ "${1:-}" = inside ] ||
	apart "what a machine may lack" "busybox nsenter ip curl \
		dnsmasq openssl sysctl" tests/system/bare/run.sh "$@"

# --- inside: pid 1 of a pid namespace. The machine's network is 10.88.0.2. The far side,
# another namespace, is 10.88.0.1: the edge, resolvers, and visitors.
work=$2
bin=$3
shift 3
agent_file=$(readlink -f "${AGENT:-$bin/culvert}")
. tests/checks.sh
agent=
chroot=$(command -v chroot)

mount -t tmpfs none "$work"
cd "$work"
unshare -n sleep 600 &
far=$!
# far COMMAND...: runs it in that namespace.
far() {
	nsenter -t $far -n "$@"
}

evidence() {
	tail -n 20 "$work/log" "$work/said" 2>/dev/null | sed 's/^/      /'
}
not() {
	! "$@"
}
apart() {
	[ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ]
}
until_ok apart
ip link add up0 type veth peer name down0 netns $far
ip addr add 10.88.0.2/24 dev up0
ip link set up0 up
ip link set lo up
far ip addr add 10.88.0.1/24 dev down0
far ip link set down0 up
far ip link set lo up

# --- the far side --------------------------------------------------------------
TOKEN=bare_machine_token_of_this_test_2
cat >edge.yml <<EOF
domain: lab.example
listeners:
  agent: 10.88.0.1:4443
  http: 10.88.0.1:80
  https: 10.88.0.1:443
  tcp: 10.88.0.1
ports: 20000-20009
state_dir: $work/edge
credentials:
  - id: lab
    authtoken: $TOKEN
EOF
far "$bin/culvert-edge" serve --config edge.yml >edge.log 2>&1 &
until_ok far curl -s -o index.none http://10.88.0.1/ || {
	cat edge.log
	exit 1
}
mkdir www
echo 'over tcp' >www/index.html
busybox httpd -f -p 10.88.0.2:8080 -h www &

served() {
	[ "$(far curl -s -m 5 -H 'Host: web.lab.example' http://10.88.0.1/)" = served ]
}
served_tcp() {
	[ "$(far curl -s -m 5 http://10.88.0.1:20000/)" = 'over tcp' ]
}

# --- the root --------------------------------------------------------------------
# The common files: the program, a configuration, a directory to serve.
mkdir -p base/srv base/etc
cp "$agent_file" base/culvert
ldd "$agent_file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
	mkdir -p "base${library%/*}"
	cp -L "$library" "base$library"
done
echo served >base/srv/index.html
cp edge/ca.pem base/ca.pem
# The default configuration; lines for `agent:` on standard input.
configuration() {
	cat <<EOF
version: 3
agent:
  authtoken: $TOKEN
  connect_url: edge.lab.example:4443
  connect_cas: ${cas:-/ca.pem}
  dns_public_resolvers: false
  web_addr: ${web:-false}
$(cat)
endpoints:
  - name: web
    url: http://web.lab.example
    upstream:
      url: ${upstream:-file:///srv}
${verify:-}
EOF
}

# fresh: a new root in place of the last one.
fresh() {
	ended || true
	rm -rf root
	cp -al base root
	root=$work/root
	cas='' web='' upstream='' verify=''
	configuration </dev/null >root/culvert.yml
	echo '10.88.0.1 edge.lab.example' >root/etc/hosts
}
# configure: another configuration, lines for `agent:` on standard input.
configure() {
	configuration >root/culvert.yml
}
# The root is read-only, like a squashfs.
read_only() {
	mount --bind root root
	mount -o remount,bind,ro root
}

# User and group 4711 are in no file, and the environment has only the given variables.
# start [VARIABLE=VALUE...]: starts the agent, with all endpoints.
start() {
	# Not by the process that will write it: the last output must be gone now.
	: >log
	env -i "$@" "$chroot" --userspec=4711:4711 --groups= "$root" /culvert start --all \
		--config /culvert.yml --log stderr --log-format logfmt >log 2>&1 &
	agent=$!
}
# ran [VARIABLE=VALUE...] -- WORDS...: runs a command of the agent; its output is in `said`.
ran() {
	variables=
	while [ "$1" != -- ]; do
		variables="$variables $1"
		shift
	done
	shift
	# shellcheck disable=SC2086 # one word a variable
	env -i $variables "$chroot" --userspec=4711:4711 --groups= "$root" /culvert "$@" >said 2>&1 </dev/null
}
alive() {
	grep -q '^State:[^ZX]*$' "/proc/$agent/status" 2>/dev/null
}
# Ends the agent and exits with its status.
ended() {
	[ -n "$agent" ] || return 0
	kill -TERM $agent 2>/dev/null || true
	status=0
	wait $agent || status=$?
	agent=
	umount root 2>/dev/null || true
	return $status
}
said() {
	grep -qE "$1" log
}
waits() {
	until_ok said "$1" && alive
}
lost() {
	said 'session closed'
}
calm() {
	alive && ! grep -E 'lvl=(warn|eror|crit)' log
}
answered() { # address of the local API
	curl -s -m 2 -o api -w '%{http_code}' "http://$1/api/status" | grep -q 200
}
files() {
	(cd base && find . | sort)
	printf '%s\n' ./culvert.yml ./etc/hosts
}
# resolver near|far ADDRESS: starts one that has the edge's name.
resolver() {
	# dnsmasq itself is started, without a shell around it.
	case $1 in
	near) set -- env "$2" ;;
	far) set -- "nsenter -t $far -n" "$2" ;;
	esac
	: >dns.log
	# shellcheck disable=SC2086 # a command and its words
	$1 dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
		--pid-file= --user=root --log-facility=- --listen-address="$2" \
		--host-record=edge.lab.example,10.88.0.1 >dns.log 2>&1 &
	resolver=$!
	until_ok grep -q started dns.log
}
resolver_gone() {
	kill "$resolver"
	wait "$resolver" || true
}

# --- the trials --------------------------------------------------------------------
try_nothing() {
	echo "no /proc, /dev, /tmp, shell, HOME, users; a root that cannot be written:"
	fresh
	configure </dev/null
	printf '  - name: raw\n    url: tcp://lab.example:20000\n    upstream:\n      url: tcp://10.88.0.2:8080\n' \
		>>root/culvert.yml
	files | sort >before
	read_only
	start
	check "a directory is served" until_ok served
	check "TCP too" until_ok served_tcp
	check "it is a user whom nobody knows" grep -qE '^Uid:.4711.4711' "/proc/$agent/status"
	check "it has nothing to complain of" calm
	(cd root && find . | sort) >after
	check "asked to end it ends with 0" ended
	check "it has written nothing" cmp before after
}

try_late_loopback() {
	echo "lo is down at the start, and there is no IPv6:"
	fresh
	web=127.0.0.1:4040
	configure </dev/null
	ip link set lo down
	# As before its first start.
	ip addr flush dev lo
	sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
	start
	check "a directory is served" until_ok served
	check "the log says that the local API waits" said 'lvl=warn.*web_addr is not available.*127.0.0.1:4040'
	check "it cannot be asked yet" not answered 127.0.0.1:4040
	ip link set lo up
	check "lo comes up: it can" until_ok answered 127.0.0.1:4040
	check "asked to end it ends with 0" ended
	fresh
	web=10.88.0.77:4040
	configure </dev/null
	start
	check "an address of a bridge that comes later: a directory is served" until_ok served
	ip addr add 10.88.0.77/32 dev up0
	check "it comes: the local API answers there" until_ok answered 10.88.0.77:4040
	ip addr del 10.88.0.77/32 dev up0
	fresh
	web=localhost:4040
	configure </dev/null
	start
	check "localhost is known without a file" until_ok answered 127.0.0.1:4040
	sysctl -q -w net.ipv6.conf.all.disable_ipv6=0
}

try_resolvers() {
	echo "names without /etc/resolv.conf:"
	fresh
	rm root/etc/hosts
	resolver near 127.0.0.1
	start
	check "the resolver of this machine is asked" until_ok served
	resolver_gone
	fresh
	rm root/etc/hosts
	start
	check "without one the log says who was asked, and what to do" \
		waits "edge.lab.example.*127.0.0.1:53.*resolv.conf.*dns_resolver_ips"
	resolver far 10.88.0.1
	echo 'nameserver 10.88.0.1' >root/etc/resolv.conf
	check "the file comes: online" until_ok served
	resolver_gone
	fresh
	rm root/etc/hosts
	echo '  dns_resolver_ips: [10.88.0.1]' | configure
	resolver far 10.88.0.1
	start
	check "with dns_resolver_ips no file is needed" until_ok served
	resolver_gone

	echo "an /etc/resolv.conf that says nothing, and one that comes in its place:"
	resolver far 10.88.0.1
	for how in empty comments dangling; do
		fresh
		rm root/etc/hosts
		case $how in
		empty) : >root/etc/resolv.conf ;;
		comments) printf '# made by netifd\n; nothing yet\n\n' >root/etc/resolv.conf ;;
		# As on OpenWrt, before the network.
		dangling) ln -s /tmp/resolv.conf root/etc/resolv.conf ;;
		esac
		start
		check "$how: the log says so" waits "127.0.0.1:53.*resolv.conf names no resolver"
		case $how in
		dangling)
			mkdir root/tmp
			echo 'nameserver 10.88.0.1' >root/tmp/resolv.conf
			;;
		*)
			echo 'nameserver 10.88.0.1' >root/etc/new
			mv root/etc/new root/etc/resolv.conf
			;;
		esac
		check "$how: online then" until_ok served
	done
	echo 'nameserver 10.88.0.99' >root/etc/new
	mv root/etc/new root/etc/resolv.conf
	far ip link set down0 down
	until_ok lost
	far ip link set down0 up
	check "another resolver, that is silent: the last address does" until_ok served
	resolver_gone
}

try_bundle() {
	echo "no CA bundle:"
	fresh
	rm root/ca.pem
	start
	check "a file that is named and not there: it ends" until_ok not alive
	check "and says which" said '/ca.pem'
	fresh
	cas=host
	configure </dev/null
	start
	check "connect_cas: host: it says what to do, and goes on trying" \
		waits 'no CA bundle; install ca-certificates.*connect_cas.*retry='
	mkdir -p root/etc/ssl/certs
	cp edge/ca.pem root/etc/ssl/certs/ca-certificates.crt
	check "the bundle comes, from a disk that was mounted late: online" until_ok served
	check "asked to end it ends with 0" ended
	fresh
	# The listener speaks no TLS, which must be reported.
	upstream=https://10.88.0.2:8080 verify='      tls_verify: true'
	configure </dev/null
	start
	page() {
		far curl -s -m 5 -H 'Host: web.lab.example' http://10.88.0.1/ | grep -q "$1"
	}
	check "an upstream to be verified: its visitors are told" until_ok page 'no CA bundle'
	check "and who runs it, what to do" \
		said 'lvl=warn.*cannot verify upstream.*web.*no CA bundle; install ca-certificates.*tls_verify_cas'
	mkdir -p root/etc/ssl/certs
	cp edge/ca.pem root/etc/ssl/certs/ca-certificates.crt
	check "the bundle comes: it is used" until_ok page 'does not use TLS'
	check "asked to end it ends with 0" ended
	fresh
	upstream=http://10.88.0.2:8080
	configure </dev/null
	start
	tcp_answers() {
		[ "$(far curl -s -m 5 -H 'Host: web.lab.example' http://10.88.0.1/)" = 'over tcp' ]
	}
	check "the edge's own CA in a file needs none" until_ok tcp_answers
	check "and there is nothing to complain of" calm
}

try_home() {
	echo "no HOME:"
	fresh
	mkdir -p root/etc/culvert root/home/a/.config/ngrok root/xdg/ngrok root/state
	cp root/culvert.yml root/etc/culvert/culvert.yml
	check "the machine's configuration is read" ran -- config check
	check "by its name" grep -q 'Valid configuration file at /etc/culvert/culvert.yml' said
	check "a token cannot be saved there by anybody" not ran -- config add-authtoken "$TOKEN"
	check "and it says why, and what to set" \
		grep -qE '/etc/culvert/culvert.yml cannot be written: Permission denied.*HOME.*--config' said
	rm -r root/etc/culvert
	for home in '' HOME= HOME=/nonexistent HOME=/home/a; do
		# shellcheck disable=SC2086 # none or one word
		check "'$home': a token cannot be saved" not ran $home -- config add-authtoken "$TOKEN"
		check "'$home': it says where, why, and what to set" \
			grep -qE "^[^/]*/${home:+.*}[^ ]*.yml cannot be written: Permission denied.*HOME.*--config" said
	done
	check "'': there is no configuration to check" not ran -- config check
	check "'': it says where one belongs" grep -q /etc/culvert/culvert.yml said
	chown 4711:4711 root/home/a root/xdg/ngrok root/state
	check "XDG_CONFIG_HOME is enough to save one" ran XDG_CONFIG_HOME=/xdg -- config add-authtoken "$TOKEN"
	check "there it is" grep -q "authtoken: $TOKEN" root/xdg/ngrok/ngrok.yml
	check "for nobody else" test "$(stat -c %u:%a root/xdg/ngrok/ngrok.yml)" = 4711:600
	check "--config is enough, too" ran -- config add-authtoken "$TOKEN" --config /state/c.yml
	check "there it is" grep -q "authtoken: $TOKEN" root/state/c.yml
	start HOME=/nonexistent
	check "it serves with a HOME that is not there" until_ok served
	check "and makes none" test ! -e root/nonexistent
	check "and has nothing to complain of" calm
}

try_full() {
	echo "/tmp in RAM, and full:"
	fresh
	mkdir root/tmp
	mount -t tmpfs -o size=64k,mode=1777 none root/tmp
	printf 'version: 3\nagent:\n  authtoken: old\n' >root/tmp/c.yml
	chown 4711:4711 root/tmp/c.yml
	cp root/tmp/c.yml before
	dd if=/dev/zero of=root/tmp/fill bs=1024 2>/dev/null || true
	check "a token cannot be saved there" not ran -- config add-authtoken "$TOKEN" --config /tmp/c.yml
	check "it says why" grep -q 'c.yml cannot be written: No space left on device.*Nothing was changed' said
	check "the file is as it was" cmp before root/tmp/c.yml
	rm root/etc/hosts
	echo '  dns_resolver_ips: [10.88.0.1]' | configure
	resolver far 10.88.0.1
	start
	check "the last good address cannot be kept: it serves all the same" until_ok served
	check "and has nothing to complain of" calm
	check "nothing of it is left there" test "$(find root/tmp -type f | wc -l)" = 2
	check "asked to end it ends with 0" ended
	umount root/tmp
	mount -t tmpfs -o size=64k,mode=1777 none root/tmp
	start
	check "with room it serves" until_ok served
	check "and keeps the address, also without a /proc" \
		until_ok grep -q 'edge.lab.example 10.88.0.1' root/tmp/culvert-4711/addresses
	check "asked to end it ends with 0" ended
	resolver_gone
	start
	check "the resolver is gone: the address is good" until_ok served
	ended
	umount root/tmp
}

try_dates() {
	echo "files of strange times:"
	fresh
	# The base is of hard links.
	rm root/srv/index.html
	for second in -300000000 0 253402300799 300000000000; do
		echo served >root/srv/at
		touch -d "@$second" root/srv/at
		mv root/srv/at root/srv/index.html
		[ -n "$agent" ] || start
		check "of second $second" until_ok served
	done
	check "the agent lives" alive
}

[ $# -gt 0 ] || set -- nothing late_loopback resolvers bundle home full dates
for name in "$@"; do
	"try_$name"
done
ended || true
echo "bare: $passed passed, $failed failed"
[ "$failed" = 0 ]
