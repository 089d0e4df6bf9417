#!/bin/sh
# Installs what the tests use and this machine lacks. On Debian and its
# relatives, as root; elsewhere it says what is missing and who wants it.
#
# usage: prepare.sh [PROGRAM=PACKAGE ...]   (default: all that `make test` uses)
set -u

[ $# -gt 0 ] || set -- \
	busybox=busybox promtool=prometheus \
	curl=curl git=git nginx=nginx-light openssl=openssl \
	ssh=openssh-client sshd=openssh-server ssh-keygen=openssh-client \
	psql=postgresql-client initdb=postgresql \
	python3=python3-venv node=nodejs npm=npm tmux=tmux

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

have() {
	case $1 in
	# The interpreter alone is not enough: Debian ships venv apart.
	python3) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
	# Debian keeps it out of PATH.
	initdb) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

missing=
packages=
for pair in "$@"; do
	if ! have "${pair%%=*}"; then
		missing="$missing ${pair%%=*}"
		packages="$packages ${pair#*=}"
	fi
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "missing programs:$missing" >&2
	echo "install them with this system's package manager (Debian calls the packages:$packages)" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "missing programs:$missing" >&2
	echo "install them: sudo apt-get install -y$packages" >&2
	exit 1
fi

echo "installing$packages"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# A server package starts its server unless a policy forbids it: the tests
# start their own, on ports of their own, and want no other.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made_policy=yes
fi
install() {
	# shellcheck disable=SC2086 # one word a package
	apt-get install -y --no-install-recommends $packages >>"$log" 2>&1 </dev/null
}
install || { apt-get update >>"$log" 2>&1 </dev/null && install; }
status=$?
[ -z "$made_policy" ] || rm -f $policy
if [ $status != 0 ]; then
	tail -20 "$log" >&2
	echo "apt-get could not install:$packages" >&2
	exit 1
fi
