#!/bin/sh
# Cargo's configuration for every target of targets.tsv, on standard output, and the
# compilers that it names, in DIRECTORY.
#
# usage: config.sh TARGETS.TSV NO-UNWIND.C ZIG DIRECTORY
set -eu
targets=$1 stub=$2 zig=$3 dir=$4
tab=$(printf '\t')

echo '# Made by cross/container/config.sh.'
settings=
while IFS=$tab read -r triple zigtarget zigoptions rustoptions _; do
	case $triple in '#'* | '') continue ;; esac
	[ "$zigoptions" != - ] || zigoptions=
	[ "$rustoptions" != - ] || rustoptions=
	mkdir -p "$dir/$triple"
	cat >"$dir/$triple/cc" <<-END
		#!/bin/sh
		n=\$#
		while [ \$n -gt 0 ]; do
			case \$1 in
			--target=* | -Wl,-melf_*) ;;
			-lunwind) set -- "\$@" -Os $stub ;;
			*) set -- "\$@" "\$1" ;;
			esac
			shift
			n=\$((n - 1))
		done
		exec $zig cc -target $zigtarget $zigoptions "\$@"
	END
	printf '#!/bin/sh\nexec %s ar "$@"\n' "$zig" >"$dir/$triple/ar"
	chmod 755 "$dir/$triple/cc" "$dir/$triple/ar"
	echo
	echo "[target.$triple]"
	echo "linker = \"$dir/$triple/cc\""
	printf 'rustflags = "-C target-feature=+crt-static -C link-self-contained=no'
	printf ' -A linker_messages -C force-unwind-tables=no%s"\n' "${rustoptions:+ $rustoptions}"
	lower=$(echo "$triple" | tr - _)
	settings="$settings
CC_$lower = \"$dir/$triple/cc\"
AR_$lower = \"$dir/$triple/ar\"
CFLAGS_$lower = \"-ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables\""
done <"$targets"
echo
echo "[env]$settings"
