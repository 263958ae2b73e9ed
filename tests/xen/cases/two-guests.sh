# shellcheck shell=bash
# Two guests with different kernels play into the same speakers at once, one on the left channel and one on the right.
need_guest lab-old old || exit 1
need_guest lab-new new || exit 1
record_sink spk speakers || exit 1
play lab-old left 480 4800 &
old=$!
play lab-new right 1024 4096
new=$?
wait "$old"
old=$?
stop_recording
exit $((old + new))
