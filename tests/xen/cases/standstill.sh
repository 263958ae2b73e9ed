# shellcheck shell=bash
# The player is stopped for a second, so that the guest's buffer runs empty, and goes on; then the whole guest is, for two, so that
# its page of positions runs full, too. Nothing that was written is lost.
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
failed=0
# begin SIGNAL PERIOD BUFFER: a second and a half of it; end SIGNAL
begin() {
    gsh "$guest" "aplay -v -D hw:0,0 --period-size=$2 --buffer-size=$3 /signals/$1.wav 2>/tmp/aplay.log & player=\$!; sleep 1.5" || failed=1
}
end() {
    gsh "$guest" 'wait $player' || failed=1
    gsh "$guest" 'cat /tmp/aplay.log' >"$case_out/aplay-$1.log"
}
for play in 'play-1 240 2400' 'play-2 1024 4096' 'play-3 1200 9600'; do
    # shellcheck disable=SC2086 # three words
    begin $play
    gsh "$guest" 'kill -STOP $player; sleep 1; kill -CONT $player' || failed=1
    end "${play%% *}"
done
begin play-4 240 2400
xl pause "$guest"
doze 2
xl unpause "$guest"
end play-4
stop_recording
exit "$failed"
