# shellcheck shell=bash
# One stream goes all the ways that ALSA knows: it ends amid a period, runs dry, is stopped, asks for a pause, gets new parameters
# while it is open; with rings that are no power of two, and at both rates.
need_guest "$guest" "$kernel" || exit 1
failed=0
note_driver "$guest" || failed=1
record_sink spk speakers || exit 1
step_through "$guest" odd-1 48000 params 1100 5500 write 0 drain || failed=1
step_through "$guest" odd-2 48000 params 441 3087 write 0 drain || failed=1
step_through "$guest" odd-3 48000 params 480 4800 write 30011 dry write 0 drain || failed=1
step_through "$guest" odd-4 48000 params 441 3087 write 30011 dry write 0 drain || failed=1
step_through "$guest" odd-5 48000 params 480 4800 write 30011 pause write 5000 drop write 0 drain || failed=1
step_through "$guest" odd-6 48000 params 480 4800 params 1100 5500 write 20011 drain params 441 3087 write 20011 drop params 480 4800 write 0 drain || failed=1
stop_recording
doze 6 # until the sink is at rest: it keeps its rate while it runs
record_sink spk speakers-44100 44100 || exit 1
step_through "$guest" odd-7 44100 params 1100 5500 write 0 drain || failed=1
step_through "$guest" odd-8 44100 params 441 3087 write 0 drain || failed=1
stop_recording
pull_notes "$guest" || failed=1
exit "$failed"
