#!/usr/bin/env bash
# Unpacks Debian's xenstored and its command line tools into a folder, without root and without installing anything:
# `fetch-xenstored.sh DIR` leaves DIR/root/usr/{lib/xen-*/bin/xenstored,bin/xenstore-*}. Does nothing where they are already.
# Their libraries come with libxen-dev.
set -euo pipefail

die() {
    echo "fetch-xenstored: $*" >&2
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

open_scope tools bookworm bookworm-security
fetch tools xen-utils-4.17 xenstore-utils
for package in "$lab"/debs/tools/*.deb; do
    dpkg-deb -x "$package" "$lab/root"
done
# In one step, so that whoever runs at the same time finds all or nothing; the first to come wins.
mv -T "$lab/root" "$dir/root" 2>/dev/null || [[ -d $dir/root ]] || die "cannot write to $dir"
