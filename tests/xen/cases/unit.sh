# shellcheck shell=bash
# The bridge as a service of the user's manager, in the sandbox that contrib's unit describes. It is killed while the guest plays, and
# the manager starts it again; it is stopped and started; the guest is heard each time.
need_guest "$guest" "$kernel" || exit 1
stop_bridge || exit 1
failed=0

user_systemctl() {
    as_user systemctl --user "$@"
}

# serves: the service runs, and is the bridge from now on.
# shellcheck disable=SC2317 # wait_for calls it
serves() {
    bridge=$(user_systemctl show --property MainPID --value vsnd-bridge)
    ((bridge > 0)) && [[ $(readlink "/proc/$bridge/exe") == /run/vsnd-bridge ]] && as_user /run/vsndctl list
}

units=/home/ann/.config/systemd/user
install -d -o ann -g ann "$units"
sed "s|/usr/bin/vsnd-bridge run|/run/vsnd-bridge run --server pipewire --capture allow|" "$LAB/systemd/vsnd-bridge.service" >"$units/vsnd-bridge.service"
# The sound server runs already.
ln -s /dev/null "$units/pipewire.service"
# The manager asks for this directory to know that systemd runs the machine, and is given its part of the tree by logind.
mkdir /run/systemd/system
cgroup=/sys/fs/cgroup/user.slice/manager
mkdir -p "$cgroup"
chown -R ann "$cgroup"
(
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    become_user /lib/systemd/systemd --user
) >"$OUT/user-manager.log" 2>&1 &
manager=$!
wait_for 20 user_systemctl show-environment || { say "the user's manager does not answer"; exit 1; }

user_systemctl start vsnd-bridge || failed=1
wait_for 10 serves || { say "the service does not serve"; failed=1; }
grep -E '^(NoNewPrivs|Seccomp|CapEff):' "/proc/$bridge/status" >"$case_out/sandbox"
record_sink spk speakers || exit 1
play "$guest" play-1 480 4800 || failed=1

begin_play "$guest" long 6000 24000 || failed=1
doze 4
killed=$bridge
kill -KILL "$bridge"
end_play "$guest" long || failed=1
if ! serves || [[ $bridge == "$killed" ]]; then
    say "the manager did not start it again"
    failed=1
fi

user_systemctl stop vsnd-bridge || failed=1
user_systemctl show --property Result --value vsnd-bridge >"$case_out/result"
user_systemctl start vsnd-bridge || failed=1
wait_for 10 serves || failed=1
play "$guest" play-2 480 4800 || failed=1
stop_recording

user_systemctl stop vsnd-bridge || failed=1
kill "$manager"
wait "$manager"
rmdir /run/systemd/system
start_bridge || failed=1
exit "$failed"
