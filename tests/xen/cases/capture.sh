# shellcheck shell=bash
# A guest that has to ask records for fourteen seconds while the microphone hears a signal. Amid it the user allows that, and forbids it
# again. Then the guest records once more, for a second.
guest=lab-asking-$kernel
need_guest "$guest" "$kernel" || exit 1
become_user /run/vsndctl monitor --json >"$case_out/events" 2>&1 &
monitor=$!
wait_for 10 grep -q "$guest" "$case_out/events" || { say "nothing is monitored"; exit 1; }
speak mic || exit 1
failed=0

# look WHEN: what the bridge tells of the guest, and what a desktop sees of it.
look() {
    vsndctl list --json >"$case_out/listed-$1" || failed=1
    as_user pw-dump | grep -o '"node.name": "vsnd\.[^"]*"' >"$case_out/nodes-$1"
    source_outputs >"$case_out/source-outputs-$1"
}
source_outputs() {
    as_user pactl list short source-outputs
}
# shellcheck disable=SC2317 # wait_for calls them
is_shown() {
    [[ -n $(source_outputs) ]]
}
# shellcheck disable=SC2317
is_hidden() {
    ! is_shown
}
# record NAME SECONDS: in the background; $recorder is its number in the guest
record() {
    gsh "$guest" "arecord -v -D hw:0,0 -t raw -f S16_LE -r 48000 -c 2 -d $2 --period-size=1200 --buffer-size=24000 /tmp/$1.raw 2>/tmp/$1.log & recorder=\$!" || failed=1
}
recorded() {
    gsh "$guest" 'wait $recorder' || failed=1
    gsh "$guest" "cat /tmp/$1.log" >"$case_out/arecord-$1.log"
    pull "$guest" "/tmp/$1.raw" "$case_out/$1.raw" || failed=1
}

record asked 14
doze 2
look asked
vsndctl capture "$guest" allow || failed=1
wait_for 5 is_shown || failed=1
look allowed
doze 1
vsndctl capture "$guest" deny || failed=1
wait_for 5 is_hidden || failed=1
look denied
recorded asked
record denied 1
recorded denied
hush
kill "$monitor"
wait "$monitor"
drop_guest "$guest"
exit "$failed"
