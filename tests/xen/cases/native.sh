# shellcheck shell=bash
# No guest: Dom0 itself plays, at short and long cycles. What is lost here, the machine lost and not the bridge.
record_sink spk speakers || exit 1
failed=0
for size in 1:64 2:256 3:1024; do
    as_user pw-cat -p --latency "${size#*:}" "$LAB/signals/play-${size%:*}.wav" || failed=1
done
stop_recording
exit "$failed"
