#!/bin/sh
# For scripts that make a root directory with a minimal Debian: the package sources of this
# machine, and its configuration for downloads. Sourced.

# debian_release: prints the name of this machine's release.
debian_release() {
	sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

# debian_sources SUITE: sets $sources, lines for sources.list with this machine's mirrors, and
# $mirror, the first of them. Fails if apt-get has no source of this machine's release.
debian_sources() {
	release=$(debian_release)
	# shellcheck disable=SC2016 # apt-get's own variables
	apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
		grep " $release" >/dev/null || apt-get update
	# shellcheck disable=SC2016 # apt-get's own variables
	sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
		grep " $release" | sed "s/ $release/ $1/")
	[ "$1" != sid ] || sources=$(echo "$sources" | grep ' sid ')
	mirror=$(echo "$sources" | sed -n "s/^deb \([^ ]*\) $1 .*/\1/p" | head -n 1)
	[ -n "$mirror" ]
}

# configure_debian ROOT: writes $sources into the root directory, and copies this machine's
# proxies, hosts, certificates and configuration of package managers.
configure_debian() {
	echo "$sources" >"$1/etc/apt/sources.list"
	mkdir -p "$1/etc/apt/apt.conf.d" "$1/usr/local/share/ca-certificates"
	for file in /etc/apt/apt.conf /etc/apt/auth.conf /etc/apt/auth.conf.d /etc/hosts /etc/resolv.conf /etc/pip.conf /etc/npmrc; do
		[ ! -e $file ] || cp -RL $file "$1/etc/${file#/etc/}"
	done
	grep -rhi 'proxy' /etc/apt/apt.conf.d 2>/dev/null >"$1/etc/apt/apt.conf.d/80proxy" || true
	# Its certificates, also when an installation of ca-certificates writes the bundle again.
	bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
	if [ -s "$bundle" ]; then
		mkdir -p "$1/etc/ssl/certs"
		cp -L "$bundle" "$1/etc/ssl/certs/ca-certificates.crt"
		for file in /usr/local/share/ca-certificates/*.crt; do
			[ ! -e "$file" ] || cp -L "$file" "$1/usr/local/share/ca-certificates/"
		done
	fi
}
