# shellcheck shell=bash
# The bridge is killed and started again at once: while the guest plays with a long ring and with a shorter one, and while it
# records. Then it is stopped, and started 20 s later: what played is told so, and what plays after that is heard, without anything
# done to the guest.
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
failed=0

restart_bridge() {
    kill -KILL "$bridge"
    start_bridge || failed=1
}

play_through() {
    begin_play "$guest" "$1" "$2" "$3" || failed=1
    doze "$4"
    restart_bridge
    end_play "$guest" "$1" || failed=1
}

play_through long 6000 24000 4
play_through play-1 1024 16384 1.5

speak mic || exit 1
gsh "$guest" 'arecord -v -D hw:0,0 -t raw -f S16_LE -r 48000 -c 2 -d 5 --period-size=1200 --buffer-size=24000 /tmp/mic.raw 2>/tmp/arecord.log & recorder=$!' || failed=1
doze 2.5
restart_bridge
gsh "$guest" 'wait $recorder' || failed=1
gsh "$guest" 'cat /tmp/arecord.log' >"$case_out/arecord-mic.log"
hush
pull "$guest" /tmp/mic.raw "$case_out/mic.raw" || failed=1

gsh "$guest" '(time aplay -q -D hw:0,0 --period-size=1024 --buffer-size=16384 /signals/left.wav) 2>/tmp/aplay.log & player=$!' || failed=1
doze 1.5
began=$(date +%s%N)
stop_bridge
echo "$((($(date +%s%N) - began) / 1000000))" >"$case_out/stop-ms"
doze 20
start_bridge || failed=1
gsh "$guest" 'wait $player'
echo "$?" >"$case_out/stopped-status"
gsh "$guest" 'cat /tmp/aplay.log' >"$case_out/stopped.log"
play "$guest" play-2 1024 16384 || failed=1
stop_recording
gsh "$guest" 'rm -f /tmp/*.raw'
exit "$failed"
