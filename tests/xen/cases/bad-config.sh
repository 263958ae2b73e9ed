# shellcheck shell=bash
# Devices whose settings in XenStore make no sense appear for one guest while another plays: the bridge says so, survives and plays on.
need_guest lab-old old || exit 1
need_guest lab-new new || exit 1
id=$(xl domid lab-old)

# device NUMBER [PATH VALUE]...: a device by hand, as xl writes it, with these settings in the frontend's directory.
device() {
    local front=/local/domain/$id/device/vsnd/$1 back=/local/domain/0/backend/vsnd/$id/$1 settings=()
    shift
    while (($#)); do
        settings+=("$front/$1" "$2")
        shift 2
    done
    xenstore-write -- "$front/backend" "$back" "$front/backend-id" 0 "$front/state" 3 "${settings[@]}"
    xenstore-chmod -r "$front" "n$id" r0
    xenstore-write "$back/frontend" "$front" "$back/frontend-id" "$id" "$back/online" 1 "$back/state" 1
}

record_sink spk speakers || exit 1
failed=0
play lab-new long 480 4800 &
player=$!
sleep 1
long=$(printf 'x%.0s' $(seq 2000))
usual=(0/0/type p 0/0/unique-id a 0/0/ring-ref 8 0/0/event-channel 8 0/0/evt-ring-ref 9 0/0/evt-event-channel 9)
device 10 0/0/type x 0/0/unique-id a
device 11 "${usual[@]}" sample-rates '48000,-1,abc' buffer-size 99999999999999999999
device 12 "${usual[@]}" 0/0/ring-ref 4294967296 0/0/event-channel -5
device 13 "${usual[@]}" short-name "$long" sample-formats "$long"
device 14 "${usual[@]}" channels-min 5 channels-max 2
device 15 5/0/type p 5/0/unique-id a
device 16 state nonsense "${usual[@]}"
device 17 "${usual[@]}" 0/0/ring-ref 0 0/0/evt-ring-ref 0
xenstore-write "/local/domain/0/backend/vsnd/$id/18/frontend" /local/domain/0/device/vsnd/0 "/local/domain/0/backend/vsnd/$id/18/state" 1
xenstore-write "/local/domain/0/backend/vsnd/nobody/0/state" 1
wait "$player" || failed=1
stop_recording
xenstore-ls -f "/local/domain/0/backend/vsnd" >"$case_out/backend"
xenstore-rm /local/domain/0/backend/vsnd/nobody
for number in $(seq 10 18); do
    xenstore-rm "/local/domain/0/backend/vsnd/$id/$number" "/local/domain/$id/device/vsnd/$number"
done
kill -0 "$bridge" || failed=1
drop_guest lab-old
exit "$failed"
