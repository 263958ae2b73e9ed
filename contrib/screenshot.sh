#!/bin/sh
# Makes docs/pavucontrol.png anew: the demo's guest in pavucontrol, on a PipeWire, session bus and display of its own.
# Needs xvfb, imagemagick, pavucontrol, dbus-daemon, pipewire-pulse, wireplumber, and target/release/vsnd-bridge or $1.
set -eu

bridge=$(realpath "${1:-target/release/vsnd-bridge}")
picture=$(realpath docs)/pavucontrol.png
home=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || :; wait; rm -rf "$home"' EXIT
mkdir -m 700 "$home/run"
export HOME="$home" XDG_RUNTIME_DIR="$home/run" XDG_CONFIG_HOME="$home/config" XDG_STATE_HOME="$home/state" GTK_A11Y=none NO_AT_BRIDGE=1
unset DISPLAY WAYLAND_DISPLAY PULSE_SERVER PIPEWIRE_REMOTE

wait_for() {
    tries=100
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "never: $*" >&2; exit 1; }
        sleep 0.1
    done
}

dbus-daemon --session --nofork --address="unix:path=$home/run/bus" &
export DBUS_SESSION_BUS_ADDRESS="unix:path=$home/run/bus"
wait_for test -S "$home/run/bus"
pipewire &
wait_for test -S "$home/run/pipewire-0"
wireplumber &
pipewire-pulse &
wait_for pactl info
Xvfb :97 -screen 0 900x520x24 -nolisten tcp &
export DISPLAY=:97
wait_for xdpyinfo
"$bridge" demo --seconds 30 &
wait_for sh -c 'pactl list short sink-inputs | grep -q .'
pavucontrol --tab=1 &
wait_for sh -c 'xwininfo -root -tree | grep -q "Volume Control"'
# It draws its streams once it has heard of them, and its meters some cycles later.
sleep 3
xdotool search --name 'Volume Control' windowmove 0 0 windowsize 900 520 || :
sleep 1
import -window root -crop 900x275+0+0 +repage "$picture"
