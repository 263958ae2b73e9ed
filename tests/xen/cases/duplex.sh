# shellcheck shell=bash
# The guest plays and records at the same time.
need_guest "$guest" "$kernel" || exit 1
speak mic || exit 1
record_sink spk speakers || exit 1
failed=0
gsh "$guest" 'arecord -v -D hw:0,0 -t raw -f S16_LE -r 48000 -c 2 -d 5 --period-size=480 --buffer-size=4800 /tmp/mic.raw 2>/tmp/arecord.log & recorder=$!; sleep 0.3'
play "$guest" play-1 480 4800 || failed=1
gsh "$guest" 'wait $recorder' || failed=1
gsh "$guest" 'cat /tmp/arecord.log' >"$case_out/arecord-mic.log"
stop_recording
hush
pull "$guest" /tmp/mic.raw "$case_out/mic.raw" || failed=1
gsh "$guest" 'rm -f /tmp/*.raw'
exit "$failed"
