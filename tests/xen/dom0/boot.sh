#!/usr/bin/env bash
# Brings Dom0 up, runs the cases that cases.list names, one after the other, and returns (init then powers off).
# What it does is what a Dom0 with a desktop user does: Xen's services as root, then everything of sound as an unprivileged user.
set -u
export LAB=/lab OUT=/run/out
mkdir -p "$OUT/consoles"
exec >>/out/dom0.log 2>&1
# shellcheck source=lab.sh
. "$LAB/dom0/lab.sh"

say "Dom0 $(uname -r)"
echo 1 >/proc/sys/kernel/printk

# Xen's services
mkdir -p /run/xen /run/xenstored /run/lock /var/log/xen/console /var/lib/xen
xenstored --pid-file=/run/xenstored.pid
/usr/lib/xen-4.17/bin/xen-init-dom0
xenconsoled --log=guest --log-dir=/var/log/xen/console
say "Xen's services run"

# The user, the group that contrib's sysusers file makes, and the modes that contrib's udev rule gives Xen's devices
cat >/etc/passwd <<'EOF'
root:x:0:0:root:/root:/bin/bash
messagebus:x:101:101::/run/dbus:/usr/sbin/nologin
ann:x:1000:1000:desktop user:/home/ann:/bin/bash
EOF
cat >/etc/group <<'EOF'
root:x:0:
tty:x:5:
audio:x:29:
messagebus:x:101:
ann:x:1000:
vsnd:x:1001:ann
EOF
mkdir -p /etc/udev/rules.d
cp "$LAB"/udev/*.rules /etc/udev/rules.d/
/lib/systemd/systemd-udevd --daemon
udevadm trigger --subsystem-match=misc
udevadm settle
ls -l /dev/xen
dbus-uuidgen --ensure=/etc/machine-id
mkdir -p /run/dbus /var/lib/dbus /home/ann
# WirePlumber 0.4 gives up without logind's directories
mkdir -p /run/systemd/{seats,sessions,users,machines}
dbus-daemon --system --fork
install -d -m 700 -o ann -g ann /home/ann /run/user/1000
install -d -m 755 -o ann -g ann /run/rec

# The user's session
become_user dbus-daemon --session --address=unix:path=/run/user/1000/bus --nofork --nopidfile >"$OUT/session-bus.log" 2>&1 &
wait_for 10 test -S /run/user/1000/bus || die "no session bus"
mkdir -p /home/ann/.config
cp -r "$LAB"/dom0/{pipewire,vsnd-bridge} /home/ann/.config/
chown -R ann:ann /home/ann
# Or the first pactl that asks whether pipewire-pulse is there starts PulseAudio in its place.
mkdir -p /etc/pulse/client.conf.d
echo 'autospawn = no' >/etc/pulse/client.conf.d/no-autospawn.conf
start_sound pipewire || die "no sound server"
say "sound runs"
install -m 755 "$LAB"/{vsnd-bridge,vsndctl} /run/
start_bridge || die "no bridge"

status=0
while read -r case <&3; do
    run_case "$case" || status=1
    deliver "$case"
done 3<"$LAB/cases.list"
drop_all_guests
stop_bridge
say "done: $status"
deliver consoles
