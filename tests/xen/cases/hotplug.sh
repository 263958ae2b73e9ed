# shellcheck shell=bash
# A card is attached to a running guest, played on, detached while idle, attached again and played on again.
need_guest lab-bare "$kernel" "" || exit 1
failed=0
record_sink spk speakers || exit 1
for round in 1 2; do
    xl vsnd-attach lab-bare 'CARD, short-name=Late, sample-rates=48000, sample-formats=s16_le, buffer-size=65536' \
        'PCM, name=Late' 'STREAM, unique-id=late, type=p' || failed=1
    wait_for_card lab-bare && play lab-bare "play-$round" 480 4800 || failed=1
    xl vsnd-list lab-bare
    xl vsnd-detach lab-bare 0 || failed=1
    xenstore-ls "/local/domain/0/backend/vsnd/$(xl domid lab-bare)" >"$case_out/left-$round" 2>/dev/null
    # Linux waits a second for the backend of a removed device, then closes it by its path: a new one there by then would be
    # closed in its place and never be looked at.
    sleep 2
    gsh lab-bare '[ ! -e /dev/snd/controlC0 ]' || { say "the card is still there"; failed=1; }
done
stop_recording
drop_guest lab-bare
exit "$failed"
