# shellcheck shell=bash
# The player is stopped for a second, so that the guest's buffer runs empty, and goes on; then the whole guest is, twice, so that
# its page of positions runs full, too. Nothing that was written is lost.
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
failed=0
for play in 'play-1 240 2400' 'play-2 1024 4096' 'play-3 1200 9600'; do
    # shellcheck disable=SC2086 # three words
    begin_play "$guest" $play || failed=1
    gsh "$guest" 'sleep 1.5; kill -STOP $player; sleep 1; kill -CONT $player' || failed=1
    end_play "$guest" "${play%% *}" || failed=1
done
# pause PLAY SECONDS
pause() {
    # shellcheck disable=SC2086 # three words
    begin_play "$guest" $1 || failed=1
    doze 1.5
    xl pause "$guest"
    doze "$2"
    xl unpause "$guest"
    end_play "$guest" "${1%% *}" || failed=1
}
pause 'play-4 240 2400' 2
# Longer than the page lasts, shorter than the page and the ring do.
pause 'play-5 6000 24000' 0.9
stop_recording
exit "$failed"
