#!/bin/sh
# Installs the Debian packages named on the command line that are not there yet, and checks the Rust toolchain.
# Nothing happens when nothing is missing; apt runs under sudo when this isn't root. A name with a minus at its end is
# for apt: a package that it must not take along.
set -eu

missing=
unwanted=
for package in "$@"; do
    case $package in
        *-) unwanted="$unwanted $package"; continue ;;
    esac
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "deps: this machine has no apt-get; install what these Debian packages hold:$missing" >&2
        exit 1
    fi
    as_root='env'
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "deps: there is no sudo here; run as root: apt-get install$missing" >&2
            exit 1
        fi
        as_root='sudo env'
    fi
    echo "deps: installing$missing"
    # A list of packages may be days old on a fresh machine, and then names files that are gone.
    $as_root DEBIAN_FRONTEND=noninteractive apt-get update -q
    # shellcheck disable=SC2086 # lists of words
    $as_root DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing $unwanted
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    echo "deps: no Rust toolchain here. Rust $wanted or newer is needed; Debian 12's own is 1.63." >&2
    echo "deps: install it with rustup, see https://rustup.rs, and start again." >&2
    exit 1
fi
found=$(rustc --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "deps: rustc is $found, and $wanted or newer is needed. With rustup: rustup update stable." >&2
    echo "deps: Debian 12's own package is too old; rustup (https://rustup.rs) goes beside it." >&2
    exit 1
fi
