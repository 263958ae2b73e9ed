# shellcheck shell=bash
# The guest plays at five sizes of period and buffer, one after the other; the speakers are recorded over all of it.
need_guest "$guest" "$kernel" || exit 1
note_driver "$guest" || exit 1
record_sink spk speakers || exit 1
failed=0
play "$guest" play-1 240 2400 || failed=1
play "$guest" play-2 480 4800 || failed=1
play "$guest" play-3 1024 4096 || failed=1
play "$guest" play-4 1200 9600 || failed=1
play "$guest" play-5 6000 24000 || failed=1
stop_recording
pull_notes "$guest" || failed=1
exit "$failed"
