# shellcheck shell=bash
# The desktop's sound server is killed while the guest plays, and started again. What the guest plays before and after is heard, and aplay notices nothing.
need_guest "$guest" "$kernel" || exit 1
record_sink spk before || exit 1
failed=0
gsh "$guest" 'aplay -v -D hw:0,0 --period-size=1024 --buffer-size=16384 /signals/long.wav 2>/tmp/aplay.log' &
player=$!
doze 4
pkill -KILL -u ann -x 'pipewire|wireplumber|pipewire-pulse'
kill "${recorders[@]}"
wait "${recorders[@]}"
recorders=()
doze 1
start_sound pipewire || failed=1
# It outlives the case.
disown "${sound_pids[@]}"
record_sink spk after || exit 1
wait "$player" || failed=1
stop_recording
gsh "$guest" 'cat /tmp/aplay.log' >"$case_out/aplay-long.log"
exit "$failed"
