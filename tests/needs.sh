#!/bin/sh
# Checks the list of packages (needs.tsv) and the script that installs it (prepare.sh): whether
# a fresh Debian resolves it, and the message on other systems. Installs nothing.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
. tests/checks.sh
. tests/skips.sh

# on_empty_debian PACKAGE...: apt-get resolves them as if no package were installed.
on_empty_debian() {
	apt-get -s -o Dir::State::status=/dev/null install --no-install-recommends "$@" >"$work/apt" 2>&1 || {
		tail -n 8 "$work/apt"
		return 1
	}
}
excluded() {
	! on_empty_debian "$@" >/dev/null && grep -q Conflicts "$work/apt"
}

echo "Debian, from an empty state:"
if ! command -v apt-get >/dev/null 2>&1; then
	skipped "packages on a fresh Debian" "apt-get is missing"
elif ! apt-cache show busybox-static >/dev/null 2>&1 &&
	! { [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 </dev/null; }; then
	skipped "packages on a fresh Debian" "apt-get has no package lists; run apt-get update"
else
	# shellcheck disable=SC2046 # a word a package
	check "all packages can be installed together" on_empty_debian $(sh tests/prepare.sh --packages)
	check "the check refuses packages that exclude each other" excluded busybox busybox-static
fi

echo "prepare.sh on a machine without packages and apt-get:"
# A directory with the tools of the script itself, and no others.
mkdir "$work/bin"
for tool in sh cat cut dirname grep id sort tr; do
	ln -s "$(command -v $tool)" "$work/bin/$tool"
done
bare() {
	env -i PATH="$work/bin" "$work/bin/sh" tests/prepare.sh "$@"
}
named() {
	for word; do
		grep -qw -e "$word" "$work/out" || {
			cat "$work/out"
			echo "not named: $word"
			return 1
		}
	done
}
check "demo: it fails" exits 1 bare --for demo
check "demo: Rust, the compiler and its packages are named at once" named Rust cc gcc libc6-dev
check "test: it fails" exits 1 bare --for test
# prepare.sh also looks outside of PATH for some: these may be here.
wanted=$(grep -v '^#' tests/needs.tsv | awk -F '\t' '$3 != "other" && $1 !~ /^(ca-bundle|initdb|python3)$/ { print $1 }' |
	while read -r program; do
		(PATH=/usr/local/sbin:/usr/sbin:/sbin && command -v "$program" >/dev/null) || echo "$program"
	done)
# shellcheck disable=SC2086 # a word a program
check "test: all programs are named at once" named Rust $wanted
check "an unknown program is refused" exits 2 sh tests/prepare.sh no-such-program
check "a group that does not exist is refused" exits 2 sh tests/prepare.sh --for nothing

echo "scripts that ask for programs:"
# Names after prepare.sh in every script.
# shellcheck disable=SC2016 # as it stands in the scripts
grep -rhoE --include='*.sh' 'sh (tests|"\$here/tests)/prepare\.sh"?( [a-z/][^ |&;>"]*)+' tests cross |
	sed 's/^.*prepare\.sh"\{0,1\}//' | tr ' ' '\n' | sort -u >"$work/asked"
listed() {
	while read -r name; do
		case $name in '' | no-such-program | \\) continue ;; esac
		cut -f1 tests/needs.tsv | grep -qxF -e "$name" || {
			echo "not in needs.tsv: $name"
			return 1
		}
	done <"$work/asked"
	[ "$(wc -l <"$work/asked")" -gt 10 ]
}
check "every program is in needs.tsv" listed
emulators() {
	for name in $(grep -o 'qemu-[a-z0-9_]*-static' cross/targets.tsv) $(grep -o 'program=[^ ]*' tests/system/vm/run.sh | cut -d= -f2); do
		status=0
		bare "$name" >"$work/out" 2>&1 || status=$?
		[ $status = 1 ] || {
			echo "not in needs.tsv: $name"
			return 1
		}
	done
}
check "every emulator is, too" emulators

echo "prepare.sh where apt-get cannot install one of the packages:"
for tool in chmod mktemp printf rm tail; do
	ln -s "$(command -v $tool)" "$work/bin/$tool"
done
cat >"$work/bin/apt-get" <<-END
	#!/bin/sh
	case "\$*" in
	*fish*) echo 'E: Unable to locate package fish' && exit 100 ;;
	install*) echo "\$*" >>"$work/installed" ;;
	esac
END
rm "$work/bin/id"
printf '#!/bin/sh\necho 0\n' >"$work/bin/id"
chmod +x "$work/bin/apt-get" "$work/bin/id"
check "it fails" exits 1 bare bash fish zsh
check "it names the package alone" grep -qx 'apt-get could not install: fish' "$work/out"
check "the others are installed" test "$(sed 's/.* //' "$work/installed" | tr '\n' ' ')" = "bash zsh "

echo "needs: $passed passed, $failed failed"
[ "$failed" = 0 ]
