#!/usr/bin/env bash
# Unpacks Debian's pulseaudio and the libraries that only it needs into a folder, without root and without installing
# anything: Debian's pipewire-audio conflicts with the package, so that installing it could take a desktop its sound.
# `fetch-pulseaudio.sh DIR` leaves DIR/root/usr/bin/pulseaudio. Does nothing where it is already. libpulse comes with
# libpulse-dev.
set -euo pipefail

die() {
    echo "fetch-pulseaudio: $*" >&2
    exit 1
}
dir=${1:-}
[[ -n $dir ]] || die "which folder?"
[[ -d $dir/root ]] && exit 0
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || die "$tool is missing: is this Debian 12?"
done
mkdir -p "$dir"
# apt.sh works in the folder that it knows as the lab's.
lab=$(mktemp -d "$dir/fetch.XXXXXX")
lab=$(cd "$lab" && pwd)
trap 'rm -rf "$lab"' EXIT
# shellcheck source=tests/xen/apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/../xen/apt.sh"

open_scope pulse bookworm bookworm-security
fetch pulse pulseaudio libltdl7 libnsl2 liborc-0.4-0 libsoxr0 libspeexdsp1 libtdb1 libtirpc3 libwrap0
for package in "$lab"/debs/pulse/*.deb; do
    dpkg-deb -x "$package" "$lab/root"
done
# In one step, so that whoever runs at the same time finds all or nothing; the first to come wins.
mv -T "$lab/root" "$dir/root" 2>/dev/null || [[ -d $dir/root ]] || die "cannot write to $dir"
