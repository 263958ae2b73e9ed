# shellcheck shell=bash
# The player is stopped for a second, so that the guest's buffer runs empty, and goes on. Nothing that it wrote is lost.
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
failed=0
stop_and_go() {
    gsh "$guest" "aplay -v -D hw:0,0 --period-size=$2 --buffer-size=$3 /signals/$1.wav 2>/tmp/aplay.log & player=\$!; sleep 1.5; kill -STOP \$player; sleep 1; kill -CONT \$player; wait \$player" || failed=1
    gsh "$guest" 'cat /tmp/aplay.log' >"$case_out/aplay-$1.log"
}
stop_and_go play-1 240 2400
stop_and_go play-2 1024 4096
stop_and_go play-3 1200 9600
stop_recording
exit "$failed"
