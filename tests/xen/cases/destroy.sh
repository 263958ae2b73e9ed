# shellcheck shell=bash
# A guest is destroyed while it plays, twice, and created again. After each death the bridge holds nothing of it: what it holds
# is written down before the guest exists, while it plays and after its death.

drop_all_guests
sleep 2
holdings before
failed=0
for round in 1 2; do
    need_guest "$guest" "$kernel" || exit 1
    gsh "$guest" 'aplay -q -D hw:0,0 --period-size=480 --buffer-size=4800 /signals/long.wav & sleep 3'
    holdings "playing-$round"
    ps -L -o comm,cls,rtprio,ni,time -p "$bridge" >"$case_out/threads"
    drop_guest "$guest"
    sleep 3
    holdings "after-$round"
done
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
play "$guest" play-1 480 4800 || failed=1
stop_recording
exit "$failed"
