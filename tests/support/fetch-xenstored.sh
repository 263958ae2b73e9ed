#!/bin/sh
# Unpacks Debian's xenstored and its command line tools into a folder, without installing them: `fetch-xenstored.sh DIR`
# leaves DIR/root/usr/{lib/xen-*/bin/xenstored,bin/xenstore-*}. Does nothing where they are already.
# Their libraries come with libxen-dev.
set -eu

dir=${1:?usage: $0 DIR}
if ls "$dir"/root/usr/lib/xen-*/bin/xenstored >/dev/null 2>&1; then
    exit 0
fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
work=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
utils=$(apt-cache search --names-only '^xen-utils-[0-9.]*$' | cut -d ' ' -f 1 | sort -V | tail -n 1)
if [ -z "$utils" ]; then
    echo "$0: apt knows no package xen-utils-*: run apt-get update" >&2
    exit 1
fi
apt-get download -q "$utils" xenstore-utils >&2
for package in *.deb; do
    dpkg -x "$package" root
done
# In one step, so that whoever runs at the same time finds all or nothing.
mv -T root "$dir/root" 2>/dev/null || [ -d "$dir/root" ]
