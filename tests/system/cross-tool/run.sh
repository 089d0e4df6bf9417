#!/bin/sh
# make test-cross-tool: builds the agent with the `cross` tool, as configured in Cargo.toml, and
# tests the programs as `make test-cross` does. podman is the container engine. Its base image is
# made by debootstrap, so no registry of images is needed.
#
# The compiler is Debian's, in a rustup home of its own: cross would update the user's toolchain.
# The containers share the network of this machine, for packages and crates. Everything is in
# target/cross-tool; the images are removed at the end.
#
# usage: run.sh [TARGET...|all]    default: a 32-bit MIPS and a 64-bit target
# DRIVER=vfs    the storage driver of podman; default: overlay, and vfs where it does not work
set -eu
cd "$(dirname "$0")/../../.."
. cross/common.sh
. tests/checks.sh
. tests/skips.sh
. tests/debian.sh
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cross_version=0.2.5

[ $# -gt 0 ] || set -- mipsel-unknown-linux-musl aarch64-unknown-linux-musl
# shellcheck disable=SC2046 # one word a target
[ "$1" != all ] || set -- $(targets)
for triple; do
	known "$triple"
done

skip() {
	skipped "the cross tool" "$1"
	exit 0
}
fail() {
	echo "make test-cross-tool: $*" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || skip "this needs root"
command -v apt-get >/dev/null 2>&1 || skip "this is not a Debian"
[ "$(dpkg --print-architecture)" = amd64 ] || skip "this is not an x86_64 machine"
command -v rustup >/dev/null 2>&1 || skip "rustup is missing"
sh tests/prepare.sh podman busybox debootstrap patchelf python3 /usr/bin/rustc /usr/bin/cargo /usr/lib/rustlib/src/rust

work=$target/cross-tool
storage=$work/storage
mkdir -p "$work/packages"
# podman refuses a long path of this directory.
state=$(mktemp -d /tmp/cross-tool.XXXXXX)
podman_version=$(podman --version)
engine() {
	podman --root "$storage" --runroot "$state/run" "$@"
}
# After an interrupt podman may still be removing the container.
images_removed() {
	[ ! -d "$storage" ] || engine rm --all --force || true
	umount "$storage/overlay" || true
	rm -rf "$storage"
}
finish() {
	until_ok images_removed || echo "$storage could not be removed" >&2
	rm -rf "$work/root" "$work/rustup" "$state"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- podman ------------------------------------------------------------------------
# Without systemd, a network of its own, and a registry. zig opens many files at once.
cat >"$state/containers.conf" <<-END
	[containers]
	default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
	netns = "host"
	[engine]
	runtime = "runc"
	cgroup_manager = "cgroupfs"
	events_logger = "none"
	tmp_dir = "$state/libpod"
END
cat >"$state/registries.conf" <<-END
	unqualified-search-registries = []
	short-name-mode = "disabled"
	[[registry]]
	prefix = "docker.io"
	location = "docker.io"
	blocked = true
END
export CONTAINERS_CONF="$state/containers.conf"
export CONTAINERS_STORAGE_CONF="$state/storage.conf"
export CONTAINERS_REGISTRIES_CONF="$state/registries.conf"

# container_runs DRIVER: starts a program in a container whose image has that program alone.
container_runs() {
	umount "$storage/overlay" 2>/dev/null || true
	rm -rf "$storage"
	cat >"$state/storage.conf" <<-END
		[storage]
		driver = "$1"
		graphroot = "$storage"
		runroot = "$state/run"
	END
	tar -C "$state/probe" -c . | podman import - localhost/probe >"$state/out" 2>&1 &&
		podman run --rm localhost/probe /busybox true >"$state/out" 2>&1
}
mkdir "$state/probe"
cp "$(command -v busybox)" "$state/probe/"
driver=
for driver in ${DRIVER:-overlay vfs}; do
	if container_runs "$driver"; then
		break
	fi
	echo "podman with storage driver $driver: $(tail -n 1 "$state/out")"
	driver=
done
[ -n "$driver" ] || skip "podman cannot run a container here: $(tail -n 1 "$state/out")"
echo "$podman_version runs containers here, storage driver $driver"
# vfs copies the whole image for each layer.
[ "$driver" != vfs ] || export BUILDAH_LAYERS=false

# The name in the Dockerfile, as podman completes it. The release is this machine's: its compiler
# runs in the containers.
image=docker.io/library/$(sed -n 's/^FROM //p' cross/container/Dockerfile)
release=$(debian_release)
debian_sources "$release" || fail "apt-get has no source of $release"
echo "==> base image of Debian $release"
rm -rf "$work/root"
debootstrap --variant=minbase --include=ca-certificates --cache-dir="$work/packages" \
	"$release" "$work/root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
	tail -n 20 "$work/debootstrap.log" >&2
	fail "debootstrap failed"
}
rm -rf "$work/root/var/cache/apt/archives"
configure_debian "$work/root"
tar -C "$work/root" -c . | podman import - "$image" >"$state/out" 2>&1 || {
	cat "$state/out" >&2
	fail "podman could not import the base image"
}
rm -rf "$work/root"

# --- cross and its toolchain -------------------------------------------------------
cargo install --quiet --locked --root "$work/tool" "cross@$cross_version" ||
	fail "cargo could not install cross $cross_version from crates.io"

# cross mounts a toolchain as a whole. Debian's is spread over /usr: this directory has it alone,
# with the libraries that the image lacks.
toolchain=$work/rustup/toolchains/debian
rm -rf "$work/rustup"
mkdir -p "$toolchain/bin" "$toolchain/lib"
cp -p /usr/bin/cargo /usr/bin/rustc "$toolchain/bin/"
ldd /usr/bin/cargo /usr/bin/rustc | awk '$2 == "=>" { print $3 }' | sort -u |
	grep -vE '/(libc|libm|ld-linux[^/]*)\.so' >"$state/libraries"
while read -r library; do
	cp -Lp "$library" "$toolchain/lib/"
done <"$state/libraries"
mkdir -p "$toolchain/lib/rustlib/src/rust"
cp -RLp /usr/lib/rustlib/x86_64-unknown-linux-gnu "$toolchain/lib/rustlib/"
cp -RLp /usr/lib/rustlib/src/rust/library "$toolchain/lib/rustlib/src/rust/"
# shellcheck disable=SC2016 # the loader's own variable
patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$toolchain/bin/cargo" "$toolchain/bin/rustc"
[ "$("$toolchain/bin/rustc" --print sysroot)" = "$toolchain" ] ||
	fail "the copy of Debian's rustc does not use its own directory"

# built TARGET: builds the release program with cross. Debian's compiler has the standard library
# of other targets as source only; RUSTC_BOOTSTRAP allows it to build that.
built() {
	env -u RUSTUP_TOOLCHAIN PATH="$toolchain/bin:$PATH" RUSTUP_HOME="$work/rustup" CROSS_CUSTOM_TOOLCHAIN=1 \
		CARGO_TARGET_DIR="$work/build" CROSS_CONTAINER_ENGINE=podman \
		CROSS_CONTAINER_OPTS="-e RUSTC_BOOTSTRAP=1 -e CARGO_UNSTABLE_BUILD_STD=std,panic_abort -e CARGO_UNSTABLE_BUILD_STD_FEATURES=optimize_for_size" \
		"$work/tool/bin/cross" build --locked --release --target "$1" </dev/null >"$work/$1.log" 2>&1 || {
		tail -n 40 "$work/$1.log"
		return 1
	}
	[ -x "$work/build/$1/release/culvert" ]
}

for triple; do
	echo "==> $triple, cross $cross_version, $("$toolchain/bin/rustc" --version)"
	program=$work/build/$triple/release/culvert
	rm -f "$program"
	check "cross builds it" built "$triple"
	[ -x "$program" ] || continue
	check "the program is static, and soft-float on MIPS" python3 cross/elf.py check "$program"
	check "the tests of every build pass" sh cross/test.sh --program "$program" "$triple"
done
echo "cross-tool: $passed passed, $failed failed"
[ "$failed" = 0 ]
