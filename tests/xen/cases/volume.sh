# shellcheck shell=bash
# The user turns a guest down, mutes it, and takes both back, all while it plays. Turned down and muted again, the guest reboots; then
# the bridge is started anew. After each the guest plays, muted from its first frame on, until the user unmutes it.
guest=lab-volume-$kernel
need_guest "$guest" "$kernel" || exit 1
record_sink spk speakers || exit 1
failed=0

listed() {
    vsndctl list --json >"$case_out/listed-$1" || failed=1
}
turn_down() {
    vsndctl volume "$guest" 50% && vsndctl mute "$guest" on || failed=1
    listed "$1"
}
unmute_amid() {
    begin_play "$guest" "$1" 1200 9600 || failed=1
    doze 1.5
    vsndctl mute "$guest" off || failed=1
    end_play "$guest" "$1" || failed=1
}

begin_play "$guest" long 1200 9600 || failed=1
doze 1.6
vsndctl volume "$guest" 50% || failed=1
doze 1.6
vsndctl mute "$guest" on || failed=1
doze 1.6
vsndctl mute "$guest" off || failed=1
doze 1.6
vsndctl volume "$guest" 100% || failed=1
end_play "$guest" long || failed=1

turn_down before-reboot
reboot_guest "$guest" || exit 1
listed after-reboot
unmute_amid play-1

turn_down before-restart
stop_bridge
start_bridge || exit 1
wait_for 10 vsndctl volume "$guest" || failed=1
listed after-restart
unmute_amid play-2
stop_recording
drop_guest "$guest"
exit "$failed"
