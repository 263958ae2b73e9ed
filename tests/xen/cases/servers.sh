# shellcheck shell=bash
# The guest runs sound servers of its own, as desktops do, each on a device of the card. First PulseAudio plays a short sound with
# its usual settings. Then it is told to leave alone what the bridge may have taken already, and both play a minute at the same
# time, PulseAudio on the left and PipeWire on the right. Every five seconds a silent player comes to PulseAudio and goes, which makes
# it take back what it wrote ahead and write it anew.
drop_all_guests
guest=lab-servers-$kernel
need_guest "$guest" "$kernel" "[['CARD, short-name=VM, sample-rates=44100;48000, sample-formats=s16_le, buffer-size=262144', \
'PCM, name=Pulse', 'STREAM, unique-id=pulse, type=p', 'PCM, name=Pipe', 'STREAM, unique-id=pipe, type=p']]" servers || exit 1
failed=0
gsh "$guest" 'export XDG_RUNTIME_DIR=/run; /tools/servers' || failed=1
note_driver "$guest" || exit 1
doze 2 # it suspends its device, and only then takes another rate
record_sink spk usual || exit 1
gsh "$guest" 'paplay /signals/short-1.wav' || failed=1
doze 1.5
stop_recording
gsh "$guest" 'pactl unload-module module-alsa-sink; pactl load-module module-alsa-sink device=hw:0,0 tsched=1 rewind_safeguard=8192' || failed=1
doze 2
record_sink spk speakers || exit 1
gsh "$guest" "paplay /signals-of-servers/pulse.wav 2>/tmp/paplay.log & pulse=\$!; pw-cat -p -P '{ node.name = player node.autoconnect = false adapter.auto-port-config = { mode = dsp } }' /signals-of-servers/pipewire.wav 2>/tmp/pw-cat.log & pipewire=\$!"
gsh "$guest" 'i=0; until pw-link player:output_FL card:playback_FL 2>/dev/null || [ $i = 50 ]; do i=$((i+1)); sleep 0.1; done; pw-link player:output_FR card:playback_FR' || failed=1
for _ in $(seq 11); do
    doze 4
    gsh "$guest" 'head -c 192000 /dev/zero | pacat --raw --rate=48000 --channels=2 --format=s16le' || failed=1
done
gsh "$guest" 'wait $pulse && wait $pipewire' || failed=1
stop_recording
pull_notes "$guest" || failed=1
for server in pulseaudio pipewire; do
    pull "$guest" "/tmp/$server.log" "$case_out/$server.log" || failed=1
done
drop_guest "$guest"
exit "$failed"
