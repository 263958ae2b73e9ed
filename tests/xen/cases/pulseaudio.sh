# shellcheck shell=bash
# Dom0's desktop has PulseAudio and no PipeWire: guests with both kernels play, and record from the microphone.
need_guest lab-old old || exit 1
need_guest lab-new new || exit 1
record_sink spk speakers || exit 1
failed=0
play lab-old play-1 1200 9600 || failed=1
play lab-old play-2 1024 4096 || failed=1
play lab-new play-3 1200 9600 || failed=1
play lab-new play-4 6000 24000 || failed=1
stop_recording
speak mic || exit 1
for kernel in old new; do
    gsh "lab-$kernel" "arecord -v -D hw:0,0 -t raw -f S16_LE -r 48000 -c 2 -d 4 --period-size=6000 --buffer-size=24000 /tmp/mic.raw" \
        >"$case_out/arecord-$kernel.log" 2>&1 || failed=1
done
hush
for kernel in old new; do
    pull "lab-$kernel" /tmp/mic.raw "$case_out/$kernel.raw" || failed=1
done
exit "$failed"
