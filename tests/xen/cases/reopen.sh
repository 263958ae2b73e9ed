# shellcheck shell=bash
# Twenty short sounds, each by a player of its own that opens the card and closes it again.
need_guest "$guest" "$kernel" || exit 1
note_driver "$guest" || exit 1
record_sink spk speakers || exit 1
failed=0
gsh "$guest" 'for i in $(seq 20); do aplay -v -D hw:0,0 --period-size=480 --buffer-size=4800 /signals/short-$i.wav || break; done >/tmp/aplay.log 2>&1; [ $i = 20 ]' || failed=1
gsh "$guest" 'grep -v "^ " /tmp/aplay.log' >"$case_out/aplay.log"
pull_notes "$guest" || failed=1
stop_recording
exit "$failed"
