#!/bin/sh
# make test-vm: the static builds on virtual machines, each a Linux kernel of Debian under
# qemu-system, with little memory, BusyBox's init as pid 1, the agent, the edge and nothing
# else. Two boots for each target: `small` tests a small machine (clock in 1970, read-only root,
# init script, overload, init, power off), `memory` compares the agent's memory with the formula
# of docs/internals/memory.md. There is no network card: all connections are on the guest's own
# loopback.
#
# usage: run.sh [TARGET ...]         (default: all of them)
# TRIALS="small memory"  the boots
# Prints the passed checks and a table of the measurements. A machine whose kernel or emulator
# cannot be installed is skipped.
set -u
cd "$(dirname "$0")/../../.." || exit 1
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-$PWD/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
vm=$target/vm
mkdir -p "$vm"
# Of the compiler, as in the cross build.
export ZIG_GLOBAL_CACHE_DIR="$target/cross/zig-cache" ZIG_LOCAL_CACHE_DIR="$target/cross/zig-cache"

ALL="mipsel-unknown-linux-musl armv7-unknown-linux-musleabihf i686-unknown-linux-musl
	mips64el-unknown-linux-muslabi64 aarch64-unknown-linux-musl x86_64-unknown-linux-musl
	s390x-unknown-linux-musl powerpc64le-unknown-linux-musl"
# Maximum seconds of a boot, which needs at most a third of it.
PATIENCE=${PATIENCE:-300}

# machine TARGET: sets the properties of its machine. `ram` is about the least for the kernel
# and this root: it is a general kernel and uses 15 to 35 MiB. More is left than a router of 32
# MiB has, so the guest occupies all but `free` (in KiB; a 64-bit kernel needs a little more).
machine() {
	case $1 in
	mipsel-*)
		# Random kernel addresses may overlap the archive of the root.
		debian=mipsel kernel=linux-image-4kc-malta
		qemu="qemu-system-mipsel -M malta -vga none -cpu 24Kc" console="ttyS0 nokaslr" ram=44 free=12288 program=qemu-system-mipsel
		;;
	armv7-*)
		# Memory that is reserved for devices is free, but not for the kernel itself.
		debian=armhf kernel=linux-image-armmp
		qemu="qemu-system-arm -M virt -cpu cortex-a15" console="ttyAMA0 cma=0" ram=56 free=12288 program=qemu-system-arm
		;;
	i686-*)
		# The oldest supported processor, with a kernel without PAE.
		debian=i386 kernel=linux-image-686
		qemu="qemu-system-i386 -M pc -cpu n270" console=ttyS0 ram=64 free=12288 program=qemu-system-i386
		;;
	mips64el-*)
		debian=mips64el kernel=linux-image-5kc-malta
		qemu="qemu-system-mips64el -M malta -vga none -cpu 5KEc" console="ttyS0 nokaslr" ram=64 free=14336 program=qemu-system-mips64el
		;;
	aarch64-*)
		debian=arm64 kernel=linux-image-cloud-arm64
		qemu="qemu-system-aarch64 -M virt -cpu cortex-a53" console=ttyAMA0 ram=80 free=14336 program=qemu-system-aarch64
		;;
	x86_64-*)
		debian=amd64 kernel=linux-image-cloud-amd64
		qemu="qemu-system-x86_64 -M pc -cpu qemu64" console=ttyS0 ram=80 free=14336 program=qemu-system-x86_64
		;;
	s390x-*)
		# Big-endian.
		debian=s390x kernel=linux-image-s390x
		qemu="qemu-system-s390x -M s390-ccw-virtio -cpu max" console=ttysclp0 ram=80 free=14336 program=qemu-system-s390x
		;;
	powerpc64le-*)
		# This kernel has pages of 64 KiB: everything needs more, and the formula does not apply. The
		# machine has memory in pieces of 256 MiB.
		debian=ppc64el kernel=linux-image-powerpc64le
		qemu="qemu-system-ppc64 -M pseries -cpu power8" console=hvc0 ram=256 free=40960 program=qemu-system-ppc64
		;;
	*)
		echo "vm-test: there is no machine for '$1'; there are:" >&2
		for name in $ALL; do echo "  $name" >&2; done
		exit 2
		;;
	esac
}

. tests/skips.sh
skip() {
	skipped "machine of $triple" "$1"
}

# root TARGET: creates the guest's root directory, then its archive.
root() {
	dir=$vm/$debian
	rm -rf "$dir/guest"
	mkdir -p "$dir/guest"
	(
		set -e
		cd "$dir/guest"
		mkdir -p bin dev proc run tmp usr/bin etc/init.d etc/default etc/culvert srv/www vm
		cp "$dir/root/bin/busybox" bin/busybox
		# This BusyBox cannot list its commands; the one of this machine can.
		for applet in $applets; do
			[ "$applet" = busybox ] || ln -s busybox "bin/$applet"
		done
		ln -s bin sbin
		ln -s sbin/init init
		cp "$target/cross/$1/culvert" "$target/cross/$1/culvert-edge" "$dir/load" usr/bin/
		cd "$OLDPWD"
		cp tests/system/vm/guest/* "$dir/guest/vm/"
		mv "$dir/guest/vm/inittab" "$dir/guest/etc/inittab"
		cp cross/init/culvert.init "$dir/guest/etc/init.d/culvert"
		chmod 755 "$dir/guest/etc/init.d/culvert" "$dir/guest/vm/"*
		cd "$dir/guest"
		printf 'RESPAWN=1\nSTOP=12\n' >etc/default/culvert
		printf 'root:x:0:0:root:/:/bin/sh\nculvert:x:555:555:culvert:/:/bin/false\n' >etc/passwd
		printf 'root:x:0:\nculvert:x:555:\n' >etc/group
		echo '127.0.0.1 localhost files.localhost web.localhost tls.localhost' >etc/hosts
		echo '<h1>through the tunnel</h1>' >srv/www/index.html
		echo "$token" >vm/authtoken
		cp "$vm/ca.pem" "$vm/edge.pem" "$vm/edge.key" vm/
		cat >etc/culvert/culvert.yml <<-END
			version: 3
			agent:
			  authtoken: $token
			  connect_url: 127.0.0.1:4400
			  connect_cas: /run/edge/ca.pem
			  memory_limit: 8MiB
			endpoints:
			  - name: files
			    url: http://files.localhost
			    upstream: {url: "file:///srv/www"}
			  - name: web
			    url: http://web.localhost
			    upstream: {url: 8081}
		END
	) || return 1
	python3 tests/system/vm/cpio.py "$dir/root.gz" "$dir/guest" etc/culvert/culvert.yml=555:600 vm/authtoken=0:600 \
		vm/edge.key=0:600
}

# certificate: creates a CA and the edge's certificate, valid from now on.
certificate() {
	key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
	echo 'subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:*.localhost' >"$vm/names"
	# shellcheck disable=SC2086 # $key is several words
	openssl req -x509 $key -keyout "$vm/ca.key" -out "$vm/ca.pem" -days 30 -subj /CN=ca &&
		openssl req $key -keyout "$vm/edge.key" -out "$vm/edge.csr" -subj /CN=edge &&
		openssl x509 -req -in "$vm/edge.csr" -CA "$vm/ca.pem" -CAkey "$vm/ca.key" \
			-CAcreateserial -days 30 -extfile "$vm/names" -out "$vm/edge.pem"
}

# boot TRIAL RAM: runs it, with the guest's output in a file and its results on the console.
boot() {
	dir=$vm/$debian
	out=$dir/$1.console
	rm -f "$out"
	started=$(date +%s)
	# Only the newest kernel is there.
	for image in "$dir"/root/boot/vmlinu*; do :; done
	base=1970-01-02
	[ "$1" = small ] || base=$(date -u +%Y-%m-%dT%H:%M:%S)
	# shellcheck disable=SC2086 # $qemu is several words
	timeout -k 5 "$PATIENCE" $qemu -m "$2" -nic none -display none -monitor none -no-reboot \
		-serial "file:$out" -rtc "base=$base" -kernel "$image" -initrd "$dir/root.gz" \
		-append "console=$console quiet panic=-1 vm.trial=$1 vm.now=$started vm.free=$free" </dev/null >"$dir/qemu.log" 2>&1 &
	qemu_pid=$!
	wait $qemu_pid
	status=$?
	qemu_pid=
	tr -d '\r' <"$out" >"$out.txt" 2>/dev/null
	sed -n -e 's/^vm \(.*\)/  \1/p' -e '/^ok: /s/^/    /p' -e '/^FAILED: /s/^/    /p' "$out.txt" | grep -v '^  done$'
	ok=$(grep -c '^ok: ' "$out.txt")
	bad=$(grep -c '^FAILED: ' "$out.txt")
	# A guest without its last line has failed.
	if ! grep -q '^vm done$' "$out.txt" || [ $status != 0 ]; then
		echo "    FAILED: the machine did not come to its end (exit $status)"
		bad=$((bad + 1))
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	if [ "$bad" != 0 ]; then
		cat "$dir/qemu.log"
		echo "    the end of its console:"
		tail -n "${TAIL:-60}" "$out.txt" | sed 's/^/    | /'
	fi
	sed -n "s/^figure \(.*\)/$triple $1 $2 \1/p" "$out.txt" >>"$vm/figures"
	echo "  $triple, $1, ${2}M: $ok passed, $bad failed, $(($(date +%s) - started)) s"
}

# value TARGET TRIAL NAME: prints a figure.
value() {
	sed -n "s/^$1 $2 [0-9]* $3 //p" "$vm/figures" | tail -n 1
}
row() { # name, trial, figure
	printf '%-58s' "$1"
	for name in $done_targets; do
		printf ' %10s' "$(value "$name" "$2" "$3")"
	done
	echo
}

qemu_pid=
trap '[ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
passed=0
failed=0
done_targets=
: >"$vm/figures"
# shellcheck disable=SC2086 # a word a target
[ "${1:-all}" != all ] || set -- $ALL
for triple in "$@"; do
	machine "$triple"
done
# Any word of letters is accepted: only the edge checks it.
token=VmTestAuthtokenThatMustBeNowhere0123456789abcdef1
sh tests/prepare.sh python3 busybox openssl || true
certificate >/dev/null 2>"$vm/openssl.log" || {
	cat "$vm/openssl.log"
	echo "FAILED: openssl cannot create the edge's certificate"
	exit 1
}
applets=$(busybox --list 2>/dev/null)
for triple in "$@"; do
	machine "$triple"
	echo "$triple: $qemu"
	if [ -z "$applets" ]; then
		skip "there is no busybox here to ask for the names of its commands"
		continue
	fi
	if ! command -v "$program" >/dev/null 2>&1 && ! sh tests/prepare.sh "$program"; then
		skip "there is no $program"
		continue
	fi
	if ! why=$(sh tests/system/vm/debian.sh "$vm/$debian" "$debian" "$kernel=./boot/vmlinu*" busybox-static=./bin/busybox 2>&1); then
		skip "$why"
		continue
	fi
	# Built with the compiler of the cross build.
	if ! sh cross/build.sh "$triple" --features edge --bins >/dev/null ||
		! "$target/cross/$triple/cc" -static -Os -Wall -o "$vm/$debian/load" tests/system/vm/load.c ||
		! root "$triple"; then
		echo "FAILED: nothing to boot for $triple"
		failed=$((failed + 1))
		continue
	fi
	done_targets="$done_targets $triple"
	for trial in ${TRIALS:-small memory}; do
		case $trial in
		small) boot small $ram ;;
		memory) case $triple in
			powerpc64le-*) skip "its pages are of 64 KiB, the formula's of 4" ;;
			*) boot memory 160 ;;
			esac ;;
		*)
			echo "vm-test: there is no trial '$trial'; there are: small, memory" >&2
			exit 2
			;;
		esac
	done
done

if [ -n "$done_targets" ]; then
	echo
	printf '%-58s' KiB
	for name in $done_targets; do printf ' %10s' "${name%%-*}"; done
	echo
	for trial in ${TRIALS:-small memory}; do
		sed -n "s/^[^ ]* $trial [0-9]* \([^ ]*\) .*/\1/p" "$vm/figures" | awk '!seen[$0]++' |
			while read -r figure; do
				row "$trial: $figure" "$trial" "$figure"
			done
	done
fi
echo "vm: $passed passed, $failed failed"
[ "$failed" = 0 ]
