# shellcheck shell=bash
# The desktop's sound server is killed while the guest plays, and started again. What the guest plays before and after is heard, and
# aplay notices nothing.
need_guest "$guest" "$kernel" || exit 1
record_sink spk before || exit 1
failed=0
begin_play "$guest" long 1024 16384 || failed=1
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
end_play "$guest" long || failed=1
stop_recording
exit "$failed"
