#!/bin/sh
# A feed of `culvert update` for the tests of this directory. Sourced; $work is a directory.
# shellcheck shell=sh disable=SC2154 # variables of the script

# make_feed AGENT DIRECTORY: the version that AGENT prints becomes a newer one of the same
# length, $newer: a program that does everything that AGENT does.
make_feed() {
	feed=$2
	mkdir -p "$feed/stable"
	older=$("$1" version | sed 's/.* //')
	newer=9${older#?}
	LC_ALL=C sed "s/$(echo "$older" | sed 's/[.]/[.]/g')/$newer/g" "$1" >"$feed/stable/new"
	chmod 755 "$feed/stable/new"
	[ -e "$work/feed.sec" ] || signify-openbsd -G -n -p "$work/feed.pub" -s "$work/feed.sec"
	publish 1 "$newer"
}

# publish SERIAL VERSION: signs the manifest of the program in the feed.
publish() {
	host=$(rustc -vV | sed -n 's/^host: //p')
	size=$(wc -c <"$feed/stable/new")
	sum=$(sha256sum "$feed/stable/new" | cut -c1-64)
	cat >"$feed/stable/manifest" <<-END
		culvert-update 1
		channel stable
		serial $1
		version $2
		date 2026-11-01T00:00:00Z
		file $host $size $sum new
	END
	signify-openbsd -S -s "$work/feed.sec" -m "$feed/stable/manifest" -x "$feed/stable/manifest.sig"
}

# The command of sed that adds the feed to a configuration. It is served on port 8099.
add_feed() {
	key=$(tail -n 1 "$work/feed.pub")
	printf '%s\n' "s,^agent:.*,&\\n  update_url: http://127.0.0.1:8099\\n  update_key: $key,"
}
