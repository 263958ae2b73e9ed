# shellcheck shell=bash
# The microphone hears a signal and the guest records four seconds of it, with a short and a long period.
need_guest "$guest" "$kernel" || exit 1
speak mic || exit 1
failed=0
record() {
    gsh "$guest" "arecord -v -D hw:0,0 -t raw -f S16_LE -r 48000 -c 2 -d 4 --period-size=$2 --buffer-size=$3 /tmp/$1.raw" \
        >"$case_out/arecord-$1.log" 2>&1 || failed=1
}
record short 480 4800
record long 6000 24000
hush
for name in short long; do
    pull "$guest" "/tmp/$name.raw" "$case_out/$name.raw" || failed=1
done
gsh "$guest" 'rm -f /tmp/*.raw'
exit "$failed"
