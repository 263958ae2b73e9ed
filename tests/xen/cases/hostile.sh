# shellcheck shell=bash
# A guest that keeps to no rule does its worst for half a minute, muted by the user, while another plays; then it is destroyed. What
# the bridge holds and costs is written down.
drop_all_guests
need_guest "$guest" "$kernel" || exit 1
failed=0
# What the first sound of all brings for good.
play "$guest" short-1 480 4800 || failed=1
doze 5
holdings before

need_guest hostile "$kernel" "[['CARD, short-name=VM, sample-rates=44100;48000, sample-formats=s16_le, buffer-size=262144', \
'PCM, name=First', 'STREAM, unique-id=a, type=p', 'STREAM, unique-id=b, type=c', \
'PCM, name=Second', 'STREAM, unique-id=c, type=p', 'STREAM, unique-id=d, type=c']]" || exit 1
gsh hostile 'echo vsnd-0 >/sys/bus/xen/drivers/vsnd/unbind' || exit 1

grep ^NoNewPrivs "/proc/$bridge/status" >"$case_out/privileges"

# cost WHEN: the bridge's processor time in ticks, the time in seconds, its memory and the most of it since the last time in KiB.
cost() {
    echo "ticks $(awk '{ print $14 + $15 }' "/proc/$bridge/stat")"
    echo "seconds $(cut -d ' ' -f 1 /proc/uptime)"
    awk '/^VmHWM|^VmRSS/ { print tolower(substr($1, 3, 3)), $2 }' "/proc/$bridge/status"
} >"$case_out/cost-$1"

# Streams come and go here, and the graph's cycles are as long as the least patient of them asks for. When they become shorter, the
# monitor of PipeWire 0.3 drops the rest of a longer one, which the loudspeakers had got. An impatient recorder keeps them all of a length.
recorder_latency=20 record_sink spk speakers || exit 1
echo 5 >"/proc/$bridge/clear_refs"
cost before
# What it plays is nobody's to hear beside the other.
vsndctl mute hostile on || failed=1
GSH_SECONDS=120 gsh hostile '/tools/hostile 30' >"$case_out/hostile.log" &
attacker=$!
doze 1
play "$guest" play-1 480 4800 || failed=1
play "$guest" play-2 1024 4096 || failed=1
play "$guest" play-3 1200 9600 || failed=1
play "$guest" play-4 6000 24000 || failed=1
kill -0 "$attacker" || { say "the attack was over before the sound"; failed=1; }
wait "$attacker" || failed=1
cost after
drop_guest hostile
play "$guest" play-5 480 4800 || failed=1
stop_recording
# A connection to the sound server that nobody uses stays for three seconds.
doze 5
holdings after
cost end
exit "$failed"
