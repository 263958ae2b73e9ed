#!/usr/bin/env bash
# Unpacks packages of Debian's into a folder, without root and without installing anything, and without what they depend on:
# `fetch.sh DIR NAME PACKAGE...` leaves DIR/root/usr/... Does nothing where that is already. NAME is for messages.
set -euo pipefail

die() {
    echo "fetch $name: $*" >&2
    exit 1
}
dir=${1:-} name=${2:-}
[[ -n $dir && -n $name ]] || die "usage: fetch.sh DIR NAME PACKAGE..."
shift 2
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

open_scope "$name" bookworm bookworm-security
fetch "$name" "$@"
for package in "$lab/debs/$name"/*.deb; do
    dpkg-deb -x "$package" "$lab/root"
done
# In one step, so that whoever runs at the same time finds all or nothing; the first to come wins.
mv -T "$lab/root" "$dir/root" 2>/dev/null || [[ -d $dir/root ]] || die "cannot write to $dir"
