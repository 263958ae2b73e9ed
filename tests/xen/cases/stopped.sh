# shellcheck shell=bash
# The bridge is stopped by a signal while the guest plays, for less than its ring lasts; then for longer than the guest has patience.
# Each time it goes on by itself, without anything done to it or to the guest.
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
failed=0

# stop_amid SIGNAL SECONDS: the guest plays it, and a second and a half later the bridge stands still for so long.
stop_amid() {
    begin_play "$guest" "$1" 6000 24000 || failed=1
    doze 1.5
    kill -STOP "$bridge"
    doze "$2"
    kill -CONT "$bridge"
}

stop_amid play-1 0.3
end_play "$guest" play-1 || failed=1
stop_amid left 5
began=$(date +%s%N)
gsh "$guest" 'wait $player'
echo "$?" >"$case_out/stopped-status"
echo "$((($(date +%s%N) - began) / 1000000))" >"$case_out/freed-ms"
play "$guest" play-2 1024 16384 || failed=1
stop_recording
exit "$failed"
