#!/bin/sh
# The program for one sound server is whole, and has nothing of the other's library.
set -eu
cargo=${CARGO:-cargo}

# verify FEATURES CRATES: built with these features it has none of the crates that this expression finds.
verify() {
    "$cargo" clippy --locked --quiet -p vsnd-bridge --no-default-features --features "$1" -- -D warnings
    crates=$("$cargo" tree --locked -p vsnd-bridge --no-default-features --features "$1" -e normal --prefix none)
    if echo "$crates" | grep -E "^($2)"; then
        echo "verify-features: vsnd-bridge with the features '$1' needs these"
        exit 1
    fi
}

verify pipewire libpulse
verify pulseaudio 'pipewire|libspa'
verify '' 'libpulse|pipewire|libspa'
echo 'verify-features: vsnd-bridge is whole for each sound server without the other'
