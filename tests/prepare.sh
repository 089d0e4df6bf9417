#!/bin/sh
# Installs the missing programs of needs.tsv: as root on Debian and its relatives. On other
# systems it lists all missing ones and fails.
#
# usage: prepare.sh --for demo|test    all that `make demo` or `make test` needs, Rust too
#        prepare.sh PROGRAM...         these programs of needs.tsv
#        prepare.sh --packages         prints every package of needs.tsv
set -u
needs=$(dirname "$0")/needs.tsv
tab=$(printf '\t')
PATH=$PATH:${HOME:-}/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

have() {
	case $1 in
	# A compiler without the C library's headers and start files does not link.
	cc) echo '#include <stdio.h>
		int main(void) { return puts(""); }' | cc -x c - -o /dev/null >/dev/null 2>&1 ;;
	# Cargo needs the roots of the system to download crates.
	ca-bundle)
		for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt \
			/etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
			[ ! -s "$bundle" ] || return 0
		done
		return 1
		;;
	# Debian packages venv apart from the interpreter.
	python3) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || /usr/bin/python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
	# Debian keeps it out of PATH.
	initdb) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 ;;
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

missing=
packages=
# want PROGRAM PACKAGES
want() {
	have "$1" && return
	missing="$missing $1"
	for package in $2; do
		case " $packages " in
		*" $package "*) ;;
		*) packages="$packages $package" ;;
		esac
	done
}

rust=
case ${1:-} in
--packages)
	grep -v '^#' "$needs" | cut -f2 | tr ' ' '\n' | sort -u
	exit
	;;
--for)
	case ${2:-} in
	demo) groups=' demo ' ;;
	test) groups=' demo test ' ;;
	*)
		echo "prepare.sh: --for takes demo or test" >&2
		exit 2
		;;
	esac
	while IFS=$tab read -r program list group; do
		case $program in '#'*) continue ;; esac
		case $groups in *" $group "*) want "$program" "$list" ;; esac
	done <"$needs"
	# The user chooses the toolchain: it is named, not installed.
	if ! cargo --version >/dev/null 2>&1; then
		rust="Rust 1.90 or newer with cargo (https://rustup.rs)"
	elif [ "$2" = test ]; then
		for component in fmt clippy; do
			cargo $component --version >/dev/null 2>&1 ||
				rust="${rust:+$rust, }cargo $component (rustup component add rustfmt clippy)"
		done
	fi
	;;
*)
	for name; do
		found=
		while IFS=$tab read -r program list group; do
			# shellcheck disable=SC2254 # a pattern
			case $name in $program)
				found=yes
				want "$name" "$list"
				break
				;;
			esac
		done <"$needs"
		if [ -z "$found" ]; then
			echo "prepare.sh: $name is not in tests/needs.tsv" >&2
			exit 2
		fi
	done
	;;
esac
[ -n "$missing$rust" ] || exit 0

refuse() { # how to install the packages
	[ -z "$rust" ] || echo "missing: $rust" >&2
	[ -z "$missing" ] || {
		echo "missing programs:$missing" >&2
		echo "install them $1" >&2
	}
	exit 1
}
[ -n "$missing" ] || refuse ""
if ! command -v apt-get >/dev/null 2>&1; then
	refuse "with this system's package manager (Debian's names:$packages)"
fi
[ "$(id -u)" = 0 ] || refuse "by: sudo apt-get install -y$packages"

echo "installing$packages"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# A server package starts its server unless a policy forbids it. The tests start servers of
# their own on free ports.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made_policy=yes
fi
install() {
	apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null
}
failed=
# shellcheck disable=SC2086 # one word a package
if ! install $packages && ! { apt-get update >>"$log" 2>&1 </dev/null && install $packages; }; then
	# apt-get installs all of them or none. Another attempt installs them one by one.
	for package in $packages; do
		: >"$log"
		install "$package" || {
			tail -8 "$log" >&2
			failed="$failed $package"
		}
	done
fi
[ -z "$made_policy" ] || rm -f $policy
if [ -n "$failed" ]; then
	echo "apt-get could not install:$failed" >&2
	exit 1
fi
missing=
[ -z "$rust" ] || refuse ""
